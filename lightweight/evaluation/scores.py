"""Scores of the pipeline's models: accuracy of the very file that ships, by the runtime that will run it, and costs.

Every variant is scored by the same keys. Accuracy has a 95 % Wilson interval and an exact paired McNemar test against
the original.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from lightweight.core.files import read_bytes
from lightweight.core.params import Params
from lightweight.core.variants import VariantName
from lightweight.data.dataset import Dataset
from lightweight.evaluation.statistics import mcnemar_p, wilson_interval
from lightweight.macs import count_macs
from lightweight.networks.model_file import load_model
from lightweight.networks.validation import limit_batch
from lightweight.onnx.graph import list_layers
from lightweight.onnx.logits import onnx_logits, torch_logits
from lightweight.onnx.session import load_inference_session
from lightweight.onnx.weights import count_parameters

COMPARED: tuple[VariantName, ...] = ("original", "optimized")  # whose metrics DVC shows, each in a file of `SHOWN`
SHOWN = (
    "accuracy", "accuracy_low", "accuracy_high", "mcnemar_p", "size_bytes", "compressed_bytes",
    "parameters", "nonzero_parameters", "macs", "int8_mac_share",
)  # fmt: skip


class EvaluateParams(Params):
    batch_size: int = Field(ge=1, le=65_536)


@dataclass(frozen=True)
class EvaluatedModel:
    """Hold the predicted classes (N,) of a model file for the test images, and its sizes, parameters and MACs."""

    predictions: np.ndarray
    costs: dict[str, Any]


def evaluate_variants(
    paths: Mapping[str, Path], dataset: Dataset, batch_size: int, threads: int
) -> dict[str, EvaluatedModel]:
    """Evaluate the model file of every variant, in the order of the pipeline: `recalibrated` before the ONNX file.

    The ONNX file is charged with the MACs of `recalibrated`, the network that it was made from, where these are more
    than the MACs of its layers. Raises InputError when a file is missing or damaged.
    """
    variants: dict[str, EvaluatedModel] = {}
    batch_size = limit_batch(batch_size, dataset)
    for name, path in paths.items():
        macs = variants["recalibrated"].costs["macs"] if path.suffix == ".onnx" else 0
        variants[name] = evaluate_file(path, dataset, batch_size, threads, macs)
    return variants


def evaluate_file(path: Path, dataset: Dataset, batch_size: int, threads: int, macs: int = 0) -> EvaluatedModel:
    """Predict the test images with a `.safetensors` or `.onnx` model file, and count what the file costs.

    `macs` are those of the network that an ONNX file was made from: more than the layers of the file have where other
    operators do the rest. Raises InputError when the file is missing or damaged.
    """
    content = read_bytes(path)
    if path.suffix == ".onnx":
        logits = onnx_logits(load_inference_session(path, threads), dataset.test, batch_size)
        layers = list_layers(content)
        parameters, nonzero = count_parameters(content)
        macs = max(macs, sum(layer.macs for layer in layers))
        int8_share = sum(layer.macs for layer in layers if layer.int8) / max(1, macs)
    else:
        model = load_model(path, dataset).model
        parameters = sum(tensor.numel() for tensor in model.parameters())
        nonzero = sum(int(tensor.count_nonzero()) for tensor in model.parameters())
        macs, int8_share = count_macs(model, dataset.blank(1)), 0.0
        logits = torch_logits(model, dataset, dataset.test, batch_size)
    costs = {
        "size_bytes": len(content),
        "compressed_bytes": len(zlib.compress(content, 9)),
        "parameters": parameters,
        "nonzero_parameters": nonzero,
        "macs": macs,
        "int8_mac_share": int8_share,
    }
    return EvaluatedModel(logits.argmax(1), costs)


def score(variant: EvaluatedModel, original: EvaluatedModel, labels: np.ndarray) -> dict[str, Any]:
    """Score a variant on labels (N,): accuracy, its interval, the paired test against the original, and the costs."""
    right, right_before = variant.predictions == labels, original.predictions == labels
    low, high = wilson_interval(int(right.sum()), len(labels))
    gained, lost = int((right & ~right_before).sum()), int((~right & right_before).sum())
    return {
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "images": len(labels),
        "gained": gained,
        "lost": lost,
        "mcnemar_p": mcnemar_p(gained, lost),
        **variant.costs,
    }


def prediction_rows(predictions: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> list[dict[str, str]]:
    """List the names of the actual and the predicted class of every test image, from predictions and labels (N,)."""
    return [
        {"actual": classes[actual], "predicted": classes[predicted]}
        for actual, predicted in zip(labels, predictions, strict=True)
    ]
