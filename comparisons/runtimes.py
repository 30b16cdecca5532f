"""A second opinion: the file that ships, run by other runtimes, which must give the same classes.

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
import pandas as pd

from lightweight.core.errors import InputError
from lightweight.core.machine import cpu_name, vector_extensions
from lightweight.data.dataset import Dataset, Split
from lightweight.data.dataset_file import load_dataset
from lightweight.execution.process import run_stage
from lightweight.onnx.logits import pixels
from lightweight.onnx.session import load_inference_session
from lightweight.quantization.parity import accuracy, logit_error
from lightweight.reporting.table import markdown

PREPARED, OPTIMIZED = Path("data/prepared.safetensors"), Path("models/optimized.onnx")
BATCH_SIZE, AGREEMENT = 100, 0.99
Predict = Callable[[np.ndarray], np.ndarray]


def with_onnxruntime(path: Path) -> Predict:
    """Load an ONNX file in ONNX Runtime, on one thread."""
    session = load_inference_session(path, threads=1)
    return lambda images: session.run(None, {"input": images})[0]


def compile_openvino(path: Path) -> Any:
    """Compile an ONNX or IR file in OpenVINO, for one thread and no smaller floats than float32."""
    import openvino

    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return core.compile_model(core.read_model(path), "CPU", exact)


def with_openvino(path: Path) -> Predict:
    """Load an ONNX file in OpenVINO, on one thread."""
    compiled = compile_openvino(path)
    return lambda images: compiled({"input": images})[0]


def with_opencv(path: Path) -> Predict:
    """Load an ONNX file in OpenCV's DNN module."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    network = cv2.dnn.readNetFromONNX(str(path))

    def predict(images: np.ndarray) -> np.ndarray:
        network.setInput(images)
        return network.forward()

    return predict


RUNTIMES: dict[str, Callable[[Path], Predict]] = {  # by the name of the package
    "onnxruntime": with_onnxruntime,
    "openvino": with_openvino,
    "opencv-python-headless": with_opencv,
}
COLUMNS = ["runtime", "version", "logit error", "same class", "test accuracy"]


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else OPTIMIZED
    dataset = load_dataset(PREPARED)
    check_shapes(path, dataset)
    table, faults = compare_runtimes(path, dataset.test)
    print(markdown(table))
    print(*faults, f"{path}, {len(dataset.test):,} test images, {cpu_name()} ({vector_extensions()})", sep="\n")
    sys.exit(bool(faults))


def check_shapes(path: Path, dataset: Dataset) -> None:
    """Raise InputError unless the file takes the images of the data set and gives logits of its classes."""
    session, images = load_inference_session(path, threads=1), tuple(dataset.test.images.shape[1:])
    takes, gives = (tuple(item.shape[1:]) for item in (session.get_inputs()[0], session.get_outputs()[0]))
    if (takes, gives) != (images, (dataset.num_classes,)):
        rule = f"the data set has {images} and {dataset.num_classes} classes"
        raise InputError(f"{path}: is for images of shape {takes} and {gives[0]} classes, {rule}")


def compare_runtimes(path: Path, test: Split) -> tuple[pd.DataFrame, list[str]]:
    """Compare the logits of every runtime with those of ONNX Runtime, the first; returns a table and the faults."""
    batches = [pixels(part) for part in test.images.split(BATCH_SIZE)]
    expected: np.ndarray | None = None
    rows, faults = [], []
    for name, load in RUNTIMES.items():
        row = {"runtime": name}
        rows.append(row)
        try:
            row["version"] = metadata.version(name)
            predict = load(path)
            logits = np.concatenate([predict(batch) for batch in batches])
        except metadata.PackageNotFoundError:
            row["version"] = "not installed"
            continue
        except Exception as error:  # of classes that the runtimes do not name in their interfaces
            row["logit error"] = "cannot run the file"
            faults.append(f"{name}: {_reason(error)}")
            continue
        expected = logits if expected is None else expected
        same = float((logits.argmax(1) == expected.argmax(1)).mean())
        row |= {"logit error": f"{logit_error(expected, logits):.2e}", "same class": f"{same:.2%}"}
        row["test accuracy"] = f"{accuracy(logits, test):.2%}"
        if same < AGREEMENT:
            faults.append(f"{name}: another class on more than {1 - AGREEMENT:.0%} of the images")
    return pd.DataFrame(rows, columns=COLUMNS).fillna(""), faults


def _reason(error: Exception) -> str:
    """Join the lines of the exception's text, without the beginning that every error of OpenCV has."""
    words = " ".join(str(error).split()).rpartition("(-2:Unspecified error) ")[2]
    return words[:200] or type(error).__name__


if __name__ == "__main__":
    run_stage(main)
