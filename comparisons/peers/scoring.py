"""Scores of a file of a peer: its classes on all test images by the runtime it is for, and its bytes."""

from pathlib import Path
from typing import Any

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnxruntime

from comparisons.peers.running import reason, run_limited
from lightweight.core.errors import InputError
from lightweight.core.files import read_bytes
from lightweight.core.machine import int8_saturates
from lightweight.data.dataset import Dataset
from lightweight.evaluation.scores import EvaluatedModel, score
from lightweight.onnx.graph import list_layers
from lightweight.onnx.logits import onnx_logits

BATCH_SIZE, CPU_SECONDS = 100, 900
CONVERTED = {".xml": "OpenVINO", ".pt2": "PyTorch"}  # the runtimes of files that ONNX Runtime does not read


def evaluate(path: Path, data: Dataset, given: Path, python: Path) -> tuple[EvaluatedModel, np.ndarray]:
    """Predict the test images with a file; returns its classes and costs, and its classes where no sum is cut off.

    `python` is the interpreter of the peer, in which files run that are not ONNX. Raises InputError.
    """
    bytes_of_all = sum(part.stat().st_size for part in path.parent.glob(f"{path.stem}.*"))
    if path.suffix != ".onnx":
        classes = path.parent / "classes.npy"
        module = ["-m", "comparisons.peers.predicting"]
        command = [str(part.absolute()) for part in (path, given / "test.npz", classes)]
        done = run_limited([str(python), *module, *command], CPU_SECONDS, given)
        if done.returncode:
            raise InputError(f"{path}: {CONVERTED[path.suffix]} cannot run it: {reason(done.stderr)}")
        found = np.load(classes)
        return EvaluatedModel(found, {"size_bytes": bytes_of_all, "runtime": CONVERTED[path.suffix]}), found
    content = read_bytes(path)
    found = classify(content, data, exact=False)
    layers = list_layers(content)
    macs = sum(layer.macs for layer in layers)
    costs = {
        "size_bytes": bytes_of_all,
        "runtime": "ONNX Runtime",
        "macs": macs,
        "int8_mac_share": round(sum(layer.macs for layer in layers if layer.int8) / max(1, macs), 4),
    }
    exact = classify(content, data, exact=True) if costs["int8_mac_share"] and int8_saturates() else found
    return EvaluatedModel(found, costs), exact


def classify(content: bytes, data: Dataset, exact: bool) -> np.ndarray:
    """Predict the classes of the test images by ONNX Runtime; `exact` takes kernels that cut off no sum, as VNNI does.

    Raises InputError with the reason of ONNX Runtime.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails becomes an exception
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes that ONNX Runtime does not name in its interface
        raise InputError(f"ONNX Runtime cannot run it: {reason(str(error))}") from None
    return onnx_logits(session, data.test, BATCH_SIZE).argmax(1)


def score_file(
    model: EvaluatedModel, exact: np.ndarray, original: EvaluatedModel, labels: np.ndarray
) -> dict[str, Any]:
    """Score a file against the original, and by its classes where no sum is cut off."""
    return score(model, original, labels) | {"exact_accuracy": float((exact == labels).mean())}
