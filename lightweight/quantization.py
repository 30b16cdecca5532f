"""Weights and activations become 8-bit integers by ONNX Runtime, in a file that must agree with the model.

Integer arithmetic after Jacob et al. 2018: per-channel symmetric int8 weights; uint8 activations, whose ranges
are found while running (dynamic) or from calibration images (static).
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default, and read once: while it is imported

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from pydantic import Field

from lightweight.data import Dataset, Split
from lightweight.errors import bad_param
from lightweight.export import NORMALIZATION, finish
from lightweight.inference import pixels
from lightweight.params import Params

BEFORE_THE_NETWORK = NORMALIZATION | {"input"}  # what its nodes take: pixels, which are resized and normalised in float
EXPORT_ERROR = 1e-4  # relative, of a float32 file against its model: rounding in another order, nothing else


class QuantizeParams(Params):
    method: Literal["none", "dynamic", "static"]
    calibration_images: int = Field(ge=1)
    max_logit_error: float = Field(gt=0)
    max_accuracy_drop: float = Field(ge=0, le=1)


def quantize(exported: onnx.ModelProto, params: QuantizeParams, dataset: Dataset, seed: int) -> bytes:
    """The file that ships, from a float32 model that takes pixels; equal models and seeds give equal bytes."""
    if params.method == "none":
        return exported.SerializeToString(deterministic=True)
    with tempfile.TemporaryDirectory() as folder:
        source, ready, result = (Path(folder) / name for name in ("source.onnx", "ready.onnx", "result.onnx"))
        onnx.save(exported, source)
        quant_pre_process(source, ready)  # without it the quantizer fails on shapes that the exporter wrote
        if params.method == "dynamic":
            # Convolutions stay float32: the runtime's ConvInteger is slower than its float convolution.
            kinds = ["MatMul", "Gemm"]
            quantize_dynamic(ready, result, kinds, per_channel=True, weight_type=QuantType.QInt8)
        else:
            quantize_static(
                ready,
                result,
                _Calibration(dataset, params.calibration_images, seed),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=[node.name for node in exported.graph.node if set(node.input) & BEFORE_THE_NETWORK],
            )
        quantized = onnx.load(result)
    finish(quantized, dataset)
    return quantized.SerializeToString(deterministic=True)


class _Calibration(CalibrationDataReader):
    """A seeded random subset of the training images, a batch at a time."""

    def __init__(self, dataset: Dataset, number: int, seed: int) -> None:
        order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(seed))[:number]
        images = dataset.train.images[order.sort().values]
        self.batches: Iterator[np.ndarray] = map(pixels, images.split(64))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"input": batch}


def logit_error(expected: np.ndarray, found: np.ndarray) -> float:
    """Root mean square of the difference over that of the expected logits; both (N, classes)."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def check_parity(expected: np.ndarray, found: np.ndarray, split: Split, params: QuantizeParams) -> tuple[float, float]:
    """Logit error and accuracy drop of the file against the model on `split`. Raises InputError beyond the limits."""
    error = logit_error(expected, found)
    labels = split.labels.cpu().numpy()
    drop = float((expected.argmax(1) == labels).mean() - (found.argmax(1) == labels).mean())
    limit = EXPORT_ERROR if params.method == "none" else params.max_logit_error
    where = f"of the {params.method} file against the model on {len(split)} validation images"
    if not error <= limit:
        raise bad_param("quantize.max_logit_error", limit, f"exceeded by {error:.3g} {where}")
    if drop > params.max_accuracy_drop:
        raise bad_param("quantize.max_accuracy_drop", params.max_accuracy_drop, f"exceeded by {drop:.3g} {where}")
    return error, drop
