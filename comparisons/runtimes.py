"""A second opinion: the file that ships in other runtimes, which must say the same.

    pip install -r requirements-runtimes.txt
    python -m comparisons.runtimes [models/optimized.onnx]

Runs ONNX Runtime, OpenVINO and OpenCV's DNN module on the test images of data/prepared.safetensors, and prints how far
their logits are from ONNX Runtime's (root mean square, share of the logits'), on how many images the class is the same,
and the accuracy. Exit code 1 if a runtime that is installed cannot load the file or disagrees on more than 1 % of them.
"""

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lightweight.core.errors import InputError
from lightweight.core.machine import cpu_name, vector_extensions
from lightweight.core.process import run_stage
from lightweight.dataset import load_dataset
from lightweight.onnx.session import load_session, pixels
from lightweight.quantization.parity import accuracy, logit_error
from lightweight.reporting.table import markdown

PREPARED, OPTIMIZED = Path("data/prepared.safetensors"), Path("models/optimized.onnx")
BATCH_SIZE, AGREEMENT = 100, 0.99
Predict = Callable[[np.ndarray], np.ndarray]


def with_onnxruntime(path: Path) -> Predict:
    session = load_session(path, threads=1)
    return lambda images: session.run(None, {"input": images})[0]


def compile_openvino(path: Path) -> Any:
    """OpenVINO's compiled model of an ONNX or IR file: one thread, no smaller floats than float32."""
    import openvino

    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return core.compile_model(core.read_model(path), "CPU", exact)


def with_openvino(path: Path) -> Predict:
    compiled = compile_openvino(path)
    return lambda images: compiled({"input": images})[0]


def with_opencv(path: Path) -> Predict:
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    network = cv2.dnn.readNetFromONNX(str(path))

    def predict(images: np.ndarray) -> np.ndarray:
        network.setInput(images)
        return network.forward()

    return predict


RUNTIMES = {
    "onnxruntime": with_onnxruntime,
    "openvino": with_openvino,
    "opencv-python-headless": with_opencv,
}


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else OPTIMIZED
    dataset = load_dataset(PREPARED)
    test, session = dataset.test, load_session(path, threads=1)
    taken, given = (tuple(item.shape[1:]) for item in (session.get_inputs()[0], session.get_outputs()[0]))
    if (taken, given) != (tuple(test.images.shape[1:]), (dataset.num_classes,)):
        rule = f"the data set has {tuple(test.images.shape[1:])} and {dataset.num_classes} classes"
        raise InputError(f"{path}: is for images of shape {taken} and {given[0]} classes, {rule}")
    batches = [pixels(part) for part in test.images.split(BATCH_SIZE)]
    logits: dict[str, np.ndarray] = {}
    rows, failed = [["runtime", "version", "logit error", "same class", "test accuracy"]], []
    for name, load in RUNTIMES.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            rows.append([name, "not installed", "", "", ""])
            continue
        try:
            predict = load(path)
            logits[name] = found = np.concatenate([predict(batch) for batch in batches])
        except Exception as error:  # of classes that the runtimes do not name in their interfaces
            rows.append([name, version, "cannot run the file", "", ""])
            failed.append(f"{name}: {_reason(error)}")
            continue
        expected = logits["onnxruntime"]
        same = float((found.argmax(1) == expected.argmax(1)).mean())
        rows.append(
            [name, version, f"{logit_error(expected, found):.2e}", f"{same:.2%}", f"{accuracy(found, test):.2%}"]
        )
        failed += [f"{name}: another class on more than {1 - AGREEMENT:.0%} of the images"] if same < AGREEMENT else []
    print(markdown(rows))
    print(*failed, f"{path}, {len(test):,} test images, {cpu_name()} ({vector_extensions()})", sep="\n")
    sys.exit(bool(failed))


def _reason(error: Exception) -> str:
    """The lines as one, without the beginning that every error of OpenCV has."""
    words = " ".join(str(error).split()).rpartition("(-2:Unspecified error) ")[2]
    return words[:200] or type(error).__name__


if __name__ == "__main__":
    run_stage(main)
