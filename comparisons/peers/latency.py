"""Latencies of all files of a network in the same runtime, in turns, as ratios to the float32 export there.

    python -m comparisons.peers.latency FILES BATCH ROUNDS TIMES

is what `--latency` runs for OpenVINO, in the environment of NNCF: FILES is JSON of paths by name, TIMES becomes JSON.
"""

import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np

from lightweight.evaluation.latency import compare_ratio
from lightweight.evaluation.timing import Call, Effort, Opener, time_in_turns

ORIGINAL = "original"
BATCHES, ROUNDS, PRECISION = (1, 64), 30, 0.05
RUNTIMES = {"ONNX Runtime": (".onnx",), "OpenVINO": (".onnx", ".xml")}  # and the files that each reads


def open_in_onnxruntime(path: Path, images: np.ndarray) -> Call:
    """Open an ONNX file in ONNX Runtime, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, {"input": images})


def open_in_openvino(path: Path, images: np.ndarray) -> Call:
    """Open an ONNX or IR file in OpenVINO, on one thread."""
    from comparisons.peers.predicting import with_openvino

    return partial(with_openvino(path), images)


OPEN: dict[str, Callable[[Path, np.ndarray], Call]] = {
    "ONNX Runtime": open_in_onnxruntime,
    "OpenVINO": open_in_openvino,
}


def time_files(runtime: str, files: dict[str, Path], images: np.ndarray, rounds: int) -> dict[str, dict[str, Any]]:
    """Time files by name in turns, and return the speedup of each over the file `original`, or why it cannot run."""
    found: dict[str, dict[str, Any]] = {}
    openers: dict[str, Opener] = {}
    for name, path in files.items():
        try:
            OPEN[runtime](path, images)()
            openers[name] = partial(OPEN[runtime], path, images)
        except Exception as error:  # of classes that the runtimes do not name
            found[name] = {"error": " ".join(str(error).split())[:200]}
    pairs = [(name, ORIGINAL) for name in openers if name != ORIGINAL]
    times = time_in_turns(openers, pairs, Effort(rounds, PRECISION, threads=1))
    for name, samples in times.items():
        found[name] = {"ms": float(np.median(samples)), **compare_ratio(samples, times[ORIGINAL], PRECISION)}
    return found


def files_of(folder: Path, results: Iterable[tuple[str, Path]], runtime: str) -> dict[str, Path]:
    """List the files that a runtime reads, by name, the float32 export first."""
    known = {name: path for name, path in results if path.suffix in RUNTIMES[runtime] and path.exists()}
    return {ORIGINAL: folder / "original.onnx"} | known


def main() -> None:
    files, batch, rounds, times = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    images = np.load(files.parent / "test.npz")["images"][:batch].astype(np.float32)
    paths = {name: Path(path) for name, path in json.loads(files.read_text()).items()}
    times.write_text(json.dumps(time_files("OpenVINO", paths, images, rounds)))


if __name__ == "__main__":
    main()
