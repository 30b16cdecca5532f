"""The peak memory of inference, in a process of its own: what opening an ONNX file and running it once adds.

`python -m lightweight.evaluation.memory FILE IMAGES THREADS` is that process. It loads no PyTorch.
"""

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnxruntime

ROOT = Path(__file__).parents[2]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # as in proc(5)


def peak_memory(content: bytes, images: np.ndarray, threads: int) -> int | None:
    """Measure the bytes that a process takes beyond ONNX Runtime to open a file and to run it on images once.

    `images` are float32 (N, C, H, W). None where the system does not tell memory as Linux does.
    """
    if not STATUS.exists():
        return None
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryDirectory() as folder:
        model, batch = Path(folder) / "model.onnx", Path(folder) / "images.npy"
        model.write_bytes(content)
        np.save(batch, images)
        command = [sys.executable, "-m", "lightweight.evaluation.memory", str(model), str(batch), str(threads)]
        done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    return int(done.stdout)


def measure_here(model: Path, images: np.ndarray, threads: int) -> int:
    """Open a file and run it on images once; returns by how many bytes this process grew at its largest."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with suppress(OSError):  # without the right to, the peak of importing counts as well
        CLEAR.write_text(RESET_PEAK)
    before = _status("VmRSS")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: images})
    return _status("VmHWM") - before


def _status(key: str) -> int:
    """Read a number of bytes from what the kernel says about this process."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    sys.stdout.write(str(measure_here(Path(sys.argv[1]), np.load(sys.argv[2]), int(sys.argv[3]))))
