"""Weights in 4 bits: linear layers in blocks of 32 inputs, which the runtime multiplies so, and convolutions.

A convolution in 4 bits takes half the space of one in 8: the file holds two weights in a byte, and the runtime makes
8-bit integers of them when it loads it (`rounding/onnx_file.py`), which the same operators multiply.
"""

import logging
from collections.abc import Collection
from copy import deepcopy

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import onnx

from lightweight.onnx.gemm import replace_gemm
from lightweight.quantization.post_training import LINEAR_OPERATORS, StaticConverter
from lightweight.rounding.onnx_file import float_weights

BLOCK_SIZE = 32  # inputs of a linear layer that share a scale


class Int4Converter(StaticConverter):
    """Store linear layers in 4 bits, multiplied in 8 by MatMulNBits, and quantize convolutions as `static` does.

    The integers of convolutions have 8 bits here; `Rounder` brings those of `in_4_bits` to 4. A first convolution and
    depthwise ones keep 8: they have few weights, and their errors count most.
    """

    @property
    def in_4_bits(self) -> list[str]:
        """Name the convolutions to store in 4 bits."""
        weights = float_weights(self.model)
        convolutions = [name for name, weight in weights.items() if weight.ndim == 4]
        return [name for name in convolutions[1:] if weights[name].shape[1] > 1]

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        model, linear = deepcopy(self.model), _nodes_of_linear_layers(self.model)
        quantizer = _import_nbits_quantizer()(
            model, 4, BLOCK_SIZE, is_symmetric=True, accuracy_level=4, nodes_to_exclude=self._nodes_to_exclude(excluded)
        )
        quantizer.process()
        return self._quantize(quantizer.model.model, [*self._nodes_to_exclude(excluded), *linear])

    def _preprocess(self, exported: onnx.ModelProto) -> onnx.ModelProto:
        model = super()._preprocess(exported)
        replace_gemm(model)
        return model


def _nodes_of_linear_layers(model: onnx.ModelProto) -> list[str]:
    """Name the matrix products and the additions of their biases."""
    products = [node for node in model.graph.node if node.op_type in LINEAR_OPERATORS]
    return [name for node in products for name in (node.name, f"{node.name}_bias")]


def _import_nbits_quantizer() -> type:
    """Import MatMulNBitsQuantizer, which would configure all loggers to print."""
    if not logging.root.handlers:
        logging.root.addHandler(logging.NullHandler())
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    return MatMulNBitsQuantizer
