"""A float32 ONNX file becomes a smaller one by ONNX Runtime, without training; chosen layers can stay as they are.

Integer arithmetic after Jacob et al. 2018: per-channel symmetric int8 weights; uint8 activations, whose ranges are
found while running (dynamic) or from calibration images (static). int4 weights in blocks of 32 along the inputs.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default, and read once: while it is imported

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn

from lightweight.dataset import Dataset
from lightweight.onnx.export import NORMALIZATION, export_onnx
from lightweight.onnx.graph import weighted
from lightweight.quantization.calibration import METHODS, write_ranges
from lightweight.quantization.params import QuantizeParams

BEFORE_THE_NETWORK = NORMALIZATION | {"input"}  # what its nodes take: pixels, which are resized and normalised in float
LINEAR = {"MatMul", "Gemm"}
BLOCK = 32


class PostTrainingConverter:
    """Export a network to ONNX and convert it; `layers` maps the layers that can be converted to their nodes."""

    kinds: set[str] = LINEAR | {"Conv"}

    def __init__(self, network: nn.Module, dataset: Dataset) -> None:
        self.network = network
        self.model = self._preprocess(export_onnx(network, dataset))
        nodes = weighted(self.model).items()
        self.layers = {name: [node.name for node in own] for name, own in nodes if own[0].op_type in self.kinds}

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        """Make the model in which the excluded layers stay float32."""
        raise NotImplementedError

    def reference(self, excluded: Collection[str]) -> nn.Module:
        """Return the network that the model must agree with: the one that was exported."""
        return self.network

    def _preprocess(self, exported: onnx.ModelProto) -> onnx.ModelProto:
        """Infer shapes anew: the quantizers fail on those that the exporter wrote."""
        try:
            return _through_files(exported, quant_pre_process)
        except Exception:  # symbolic shape inference gives up at some reshapes, with an exception of no class
            return _through_files(exported, partial(quant_pre_process, skip_symbolic_shape=True))

    def _nodes_to_exclude(self, excluded: Collection[str]) -> list[str]:
        before = [node.name for node in self.model.graph.node if set(node.input) & BEFORE_THE_NETWORK]
        return before + [node for name in excluded for node in self.layers[name]]


class Float16Converter(PostTrainingConverter):
    """Half the bytes; pixels and logits stay float32."""

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        half = convert_float_to_float16(model, keep_io_types=True, node_block_list=self._nodes_to_exclude(excluded))
        unique = {node.output[0]: node for node in half.graph.node}  # one cast stands there for each of its readers
        del half.graph.node[:]
        half.graph.node.extend(unique.values())
        ordered = ONNXModel(half)
        ordered.topological_sort()
        return ordered.model


class _LinearLayersConverter(PostTrainingConverter):
    """The quantizers of linear layers read MatMul, or rename what they make of Gemm."""

    kinds = LINEAR

    def _preprocess(self, exported: onnx.ModelProto) -> onnx.ModelProto:
        model = super()._preprocess(exported)
        _replace_gemm(model)
        return model


class DynamicConverter(_LinearLayersConverter):
    """Convolutions stay float32: the runtime's ConvInteger is slower than its float convolution."""

    def __init__(self, network: nn.Module, dataset: Dataset, reduce_range: bool) -> None:
        super().__init__(network, dataset)
        self.reduce_range = reduce_range

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        quantize = partial(
            quantize_dynamic,
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=self.reduce_range,
            nodes_to_exclude=self._nodes_to_exclude(excluded),
            op_types_to_quantize=sorted(LINEAR),
        )
        return _through_files(self.model, quantize)


class StaticConverter(PostTrainingConverter):
    """All layers, with ranges of activations from calibration images."""

    def __init__(self, network: nn.Module, dataset: Dataset, images: Tensor, params: QuantizeParams) -> None:
        """Calibrate on images uint8 (N, C, H, W)."""
        super().__init__(network, dataset)
        self.params = params
        with tempfile.TemporaryDirectory() as folder:
            source, ranges = Path(folder) / "source.onnx", Path(folder) / "ranges.json"
            onnx.save(self.model, source)
            write_ranges(source, images, params.calibration, params.percentile, ranges)
            self.ranges = ranges.read_bytes()

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        def quantize(source: Path, result: Path) -> None:
            ranges = source.with_name("ranges.json")
            ranges.write_bytes(self.ranges)
            quantize_static(
                source,
                result,
                calibration_cache_path=ranges,
                calibrate_method=METHODS[self.params.calibration],
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=self.params.reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=self._nodes_to_exclude(excluded),
                # OpenCV cannot read integer biases; ONNX Runtime makes them itself where it fuses a layer.
                extra_options={"QuantizeBias": False},
            )

        return _through_files(self.model, quantize)


class Int4Converter(_LinearLayersConverter):
    """Weights of linear layers in four bits, computed with in eight; the runtime knows them as MatMulNBits only."""

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        if not logging.root.handlers:
            logging.root.addHandler(logging.NullHandler())  # or the import makes all loggers talk
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        quantizer = MatMulNBitsQuantizer(
            model, 4, BLOCK, is_symmetric=True, accuracy_level=4, nodes_to_exclude=self._nodes_to_exclude(excluded)
        )
        quantizer.process()
        return quantizer.model.model


def _through_files(model: onnx.ModelProto, change: Callable[[Path, Path], None]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "source.onnx", Path(folder) / "result.onnx"
        onnx.save(model, source)
        change(source, result)
        return onnx.load(result)


def _replace_gemm(model: onnx.ModelProto) -> None:
    """Gemm(x, W, b) becomes MatMul and Add, which the four-bit quantizer reads; nodes and weights keep their names."""
    weights = {item.name: item for item in model.graph.initializer}
    nodes, turned = [], set()
    for node in model.graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
        if node.op_type != "Gemm" or not plain or node.input[1] not in weights:
            nodes.append(node)
            continue
        if attributes.get("transB", 0) and node.input[1] not in turned:
            values = np.ascontiguousarray(numpy_helper.to_array(weights[node.input[1]]).T)
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(values, node.input[1]))
            turned.add(node.input[1])
        image, weight, *bias = node.input
        product = f"{node.output[0]}_product" if bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [image, weight], [product], name=node.name))
        if bias:
            nodes.append(helper.make_node("Add", [product, bias[0]], [node.output[0]], name=f"{node.name}_bias"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
