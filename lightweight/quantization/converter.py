"""A converter turns a network into an ONNX model of fewer bits; each method of quantization has one."""

import logging
from collections.abc import Collection
from types import ModuleType
from typing import Protocol

import onnx
from torch import Tensor, nn

from lightweight.dataset import Dataset
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.post_training import (
    DynamicConverter,
    Float16Converter,
    Int4Converter,
    StaticConverter,
)


class Converter(Protocol):
    """Turn a network into an ONNX model of fewer bits: `layers` names the layers that can be converted."""

    layers: Collection[str]

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto: ...  # the excluded layers stay float32

    def reference(self, excluded: Collection[str]) -> nn.Module: ...  # the network that the model must agree with


def make_post_training_converter(
    network: nn.Module, dataset: Dataset, images: Tensor, params: QuantizeParams
) -> Converter:
    """Make the converter of a method that does not train; `images` uint8 (N, C, H, W) are for calibration."""
    match params.method:
        case "fp16":
            return Float16Converter(network, dataset)
        case "dynamic":
            return DynamicConverter(network, dataset, params.reduce_range)
        case "int4":
            return Int4Converter(network, dataset)
        case "static":
            return StaticConverter(network, dataset, images, params)
        case _:
            raise AssertionError(params.method)


def import_training(params: QuantizeParams) -> ModuleType | None:
    """Import quantization-aware training if the method needs it, so that the digest of a resumed run counts its code.

    torchao takes seconds to import, and logs what it misses of GPUs.
    """
    if not params.trains:
        return None
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from lightweight.quantization import qat

    return qat
