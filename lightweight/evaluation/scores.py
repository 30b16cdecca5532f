"""Every variant is scored by the same keys, on the very file that ships, by the runtime that will run it.

Accuracy with a 95 % Wilson interval (Wilson 1927) and an exact paired McNemar test against the original
(McNemar 1947).
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from scipy.stats import binomtest

from lightweight.core.files import read_bytes
from lightweight.core.params import Params
from lightweight.dataset import Dataset
from lightweight.macs import count_macs
from lightweight.networks.model_file import load_model
from lightweight.onnx import graph
from lightweight.onnx.session import load_session, onnx_logits, torch_logits


class EvaluateParams(Params):
    batch_size: int = Field(ge=1, le=65_536)


@dataclass(frozen=True)
class EvaluatedModel:
    """What a model file predicts for the test images (N,), and what it costs."""

    predictions: np.ndarray
    costs: dict[str, Any]


def evaluate_file(path: Path, dataset: Dataset, batch_size: int, threads: int, macs: int = 0) -> EvaluatedModel:
    """Predictions and costs of a `.safetensors` or `.onnx` model file. Raises InputError when it is damaged.

    `macs` is what the network of an ONNX file computes: more than its layers do where others do the rest.
    """
    content = read_bytes(path)
    if path.suffix == ".onnx":
        logits = onnx_logits(load_session(path, threads), dataset.test, batch_size)
        layers = graph.layers(content)
        learned, nonzero = graph.parameters(content)
        macs = max(macs, sum(layer.macs for layer in layers))
        int8 = sum(layer.macs for layer in layers if layer.int8) / max(1, macs)
    else:
        model = load_model(path, dataset).model
        learned = sum(tensor.numel() for tensor in model.parameters())
        nonzero = sum(int(tensor.count_nonzero()) for tensor in model.parameters())
        macs, int8 = count_macs(model, dataset.blank(1)), 0.0
        logits = torch_logits(model, dataset, dataset.test, batch_size)
    costs = {
        "size_bytes": len(content),
        "compressed_bytes": len(zlib.compress(content, 9)),
        "parameters": learned,
        "nonzero_parameters": nonzero,
        "macs": macs,
        "int8_mac_share": int8,
    }
    return EvaluatedModel(logits.argmax(1), costs)


def score(variant: EvaluatedModel, original: EvaluatedModel, labels: np.ndarray) -> dict[str, Any]:
    """The metrics of one variant: accuracy, its interval, the test against the original, and the costs."""
    right, right_before = variant.predictions == labels, original.predictions == labels
    low, high = binomtest(int(right.sum()), len(labels)).proportion_ci(0.95, method="wilson")
    gained, lost = int((right & ~right_before).sum()), int((~right & right_before).sum())
    return {
        "accuracy": float(right.mean()),
        "accuracy_low": float(low),
        "accuracy_high": float(high),
        "images": len(labels),
        "gained": gained,
        "lost": lost,
        "mcnemar_p": float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        **variant.costs,
    }
