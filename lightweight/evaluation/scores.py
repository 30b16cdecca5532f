"""Scores of the pipeline's models: accuracy of the very file that ships, by the runtime that will run it, and costs.

Every variant is scored by the same keys. Accuracy has a 95 % Wilson interval and an exact paired McNemar test against
the original.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from lightweight.codec.container import PackedNetwork
from lightweight.codec.reading import load_network
from lightweight.codec.tensors import CodedTensor
from lightweight.core.files import read_bytes
from lightweight.core.params import Params
from lightweight.core.variants import VariantName
from lightweight.data.dataset import Dataset
from lightweight.evaluation.confidence import confidences, expected_calibration_error, label_losses, worst_class
from lightweight.evaluation.layers import WeightedModule, list_modules
from lightweight.evaluation.sizes import measure_sizes
from lightweight.evaluation.statistics import mcnemar_p, wilson_interval
from lightweight.macs import count_macs
from lightweight.networks.model_file import load_model
from lightweight.networks.validation import limit_batch
from lightweight.onnx.graph import list_layers
from lightweight.onnx.logits import onnx_logits, torch_logits
from lightweight.onnx.session import check_and_load
from lightweight.onnx.weights import StoredTensor, learned_tensors

COMPARED: tuple[VariantName, ...] = ("original", "optimized")  # whose metrics DVC shows, each in a file of `SHOWN`
SHOWN = (
    "accuracy", "accuracy_low", "accuracy_high", "mcnemar_p", "size_bytes", "compressed_bytes",
    "parameters", "nonzero_parameters", "macs", "int8_mac_share",
)  # fmt: skip


class EvaluateParams(Params):
    batch_size: int = Field(ge=1, le=65_536)


@dataclass(frozen=True)
class EvaluatedModel:
    """Hold what a model file predicts for the test images, and what it costs.

    `predictions` are classes (N,); `costs` are sizes, parameters and MACs; `confidences` the probabilities of the
    predicted classes (N,); `losses` the negative log-likelihoods of the labels (N,); `modules` the layers of a network.
    """

    predictions: np.ndarray
    costs: dict[str, Any]
    confidences: np.ndarray | None = None
    losses: np.ndarray | None = None
    modules: dict[str, WeightedModule] = field(default_factory=dict)


def evaluate_variants(
    paths: Mapping[str, Path], dataset: Dataset, batch_size: int, threads: int
) -> dict[str, EvaluatedModel]:
    """Evaluate the model file of every variant, in the order of the pipeline: `recalibrated` before the ONNX file.

    Files that were made of `recalibrated` are charged with its MACs, where these are more than those of their layers.
    An empty file is no variant. Raises InputError when a file is missing or damaged.
    """
    variants: dict[str, EvaluatedModel] = {}
    batch_size = limit_batch(batch_size, dataset)
    for name, path in paths.items():
        macs = 0 if path.suffix == ".safetensors" else variants["recalibrated"].costs["macs"]
        if read_bytes(path):
            variants[name] = evaluate_file(path, dataset, batch_size, threads, macs)
    return variants


def evaluate_file(path: Path, dataset: Dataset, batch_size: int, threads: int, macs: int = 0) -> EvaluatedModel:
    """Predict the test images with a `.safetensors`, `.onnx` or `.lwz` model file, and count what the file costs.

    `macs` are those of the network that a file was made from: more than the layers of the file have where other
    operators do the rest. A `.lwz` file is run as the ONNX file that it holds. Raises InputError when the file is
    missing or damaged.
    """
    content = read_bytes(path)
    modules: dict[str, WeightedModule] = {}
    if path.suffix in (".onnx", ".lwz"):
        packed = load_network(path) if path.suffix == ".lwz" else None
        model_bytes = packed.to_onnx() if packed else content
        logits = onnx_logits(check_and_load(model_bytes, path, threads), dataset.test, batch_size)
        layers = list_layers(model_bytes)
        learned = list_integers(packed) if packed else learned_tensors(content)
        macs = max(macs, sum(layer.macs for layer in layers))
        int8_share = sum(layer.macs for layer in layers if layer.int8) / max(1, macs)
    else:
        model = load_model(path, dataset).model
        learned = [StoredTensor(tensor.detach().cpu().numpy(), 0, 32) for tensor in model.parameters()]
        macs, int8_share = count_macs(model, dataset.blank(1)), 0.0
        modules = list_modules(model, dataset.blank(1))
        logits = torch_logits(model, dataset, dataset.test, batch_size)
    costs = measure_sizes(content, learned) | {
        "parameters": sum(tensor.values.size for tensor in learned),
        "nonzero_parameters": sum(tensor.nonzero for tensor in learned),
        "macs": macs,
        "int8_mac_share": int8_share,
    }
    losses = label_losses(logits, dataset.test.labels.cpu().numpy())
    return EvaluatedModel(logits.argmax(1), costs, confidences(logits), losses, modules)


def list_integers(network: PackedNetwork) -> list[StoredTensor]:
    """List the integers of a packed network, each tensor with the bits that the largest of its integers takes."""
    coded = [tensor.integers for tensor in network.tensors if isinstance(tensor, CodedTensor)]
    return [StoredTensor(values, 0, int(np.abs(values).max(initial=0)).bit_length() + 1) for values in coded]


def score_all(
    variants: Mapping[str, EvaluatedModel], labels: np.ndarray, classes: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Score every variant on labels (N,) against `original`, with its calibration and its worst class."""
    return {
        name: score(variant, variants["original"], labels) | score_trust(variant, labels, classes)
        for name, variant in variants.items()
    }


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


def score_trust(variant: EvaluatedModel, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Score how far the confidences of a variant can be trusted, on labels (N,), and where it errs most."""
    assert variant.confidences is not None
    assert variant.losses is not None
    right = variant.predictions == labels
    worst, worst_accuracy = worst_class(right, labels)
    return {
        "worst_class": classes[worst],
        "worst_class_accuracy": worst_accuracy,
        "calibration_error": expected_calibration_error(variant.confidences, right),
        "log_loss": float(variant.losses.mean()),
    }


def prediction_rows(
    optimized: EvaluatedModel, original: EvaluatedModel, labels: np.ndarray, classes: tuple[str, ...]
) -> list[dict[str, str]]:
    """List for every test image, with labels (N,), the actual class, those of both models, and how sure they were."""
    assert optimized.confidences is not None
    assert original.confidences is not None
    return [
        {
            "actual": classes[label],
            "predicted": classes[optimized.predictions[image]],
            "confidence": f"{optimized.confidences[image]:.4f}",
            "original": classes[original.predictions[image]],
            "original_confidence": f"{original.confidences[image]:.4f}",
        }
        for image, label in enumerate(labels)
    ]
