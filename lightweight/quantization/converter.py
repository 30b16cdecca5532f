"""A converter turns a network into a low-precision ONNX model; each quantization method has one."""

import logging
from collections.abc import Collection, Iterable, Mapping
from types import ModuleType
from typing import Protocol

import onnx
from torch import Tensor, nn

from lightweight.data.dataset import Dataset
from lightweight.quantization.int4 import Int4Converter
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.post_training import (
    DynamicConverter,
    Float16Converter,
    Float32Converter,
    StaticConverter,
)
from lightweight.rounding.rounder import RoundingPlan
from lightweight.training.history import Epoch, FineTuner


class Converter(Protocol):
    """Turn a network into an ONNX model of fewer bits, in which chosen layers stay float32."""

    @property
    def layers(self) -> Collection[str]:
        """Name the layers that the method can convert in this network."""
        ...

    @property
    def weighted(self) -> Collection[str]:
        """Name all layers that have weights, whether the method can convert them or not."""
        ...

    @property
    def changes(self) -> Mapping[str, tuple[int, float]]:
        """Tell of the layers that were rounded anew, as `SumLimiter` does."""
        ...

    def spare(self, names: Collection[str]) -> None:
        """Leave the named layers in float32 in every model, before any training; they are no longer among `layers`."""

    def train(self, fine_tune: FineTuner) -> Iterable[Epoch]:
        """Train the network with fake quantization and yield its epochs; nothing for methods that do not train."""

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        """Make the model in which the excluded layers stay float32."""

    def reference(self, excluded: Collection[str]) -> nn.Module:
        """Return the network whose logits the model must reproduce when the excluded layers stay float32."""


def make_converter(network: nn.Module, dataset: Dataset, images: Tensor, params: QuantizeParams) -> Converter:
    """Make the converter of `params.method`; `images` uint8 (N, C, H, W) are for calibration."""
    qat = import_training(params)
    if qat is not None:
        return qat.QATConverter(network, dataset, images, params.reduce_range)
    if params.method in ("static", "int4"):
        return (StaticConverter if params.method == "static" else Int4Converter)(network, dataset, images, params)
    if params.method == "dynamic":
        return DynamicConverter(network, dataset, params)
    return (Float16Converter if params.method == "fp16" else Float32Converter)(network, dataset)


def plan_rounding(converter: Converter, params: QuantizeParams) -> RoundingPlan:
    """Plan how the integers of the files of a converter are chosen anew; not at all for those that were trained."""
    if params.method not in ("dynamic", "static", "int4"):
        return RoundingPlan("nearest", False, 127)
    in_4_bits = converter.in_4_bits if isinstance(converter, Int4Converter) else []
    high, limits_sums = 64 if params.reduce_range is True else 127, params.reduce_range == "auto"
    return RoundingPlan(params.rounding, params.bias_correction, high, limits_sums, in_4_bits)


def import_training(params: QuantizeParams) -> ModuleType | None:
    """Import quantization-aware training if the method needs it, before the digest of the run is taken.

    torchao takes seconds to import, and logs which optional GPU packages are missing.
    """
    if not params.trains:
        return None
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from lightweight.quantization import qat

    return qat
