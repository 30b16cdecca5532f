"""Quantization after training: ONNX Runtime makes a smaller file of a float32 one; chosen layers can stay float32.

Integer arithmetic after Jacob et al. 2018: per-channel symmetric int8 weights; uint8 activations, whose ranges are
found while running (dynamic) or from calibration images (static).
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from copy import deepcopy
from functools import partial
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn

from lightweight.data.dataset import Dataset
from lightweight.equalization.equalizer import Equalized, equalize
from lightweight.onnx.export import NORMALIZATION, export_onnx
from lightweight.onnx.gemm import replace_gemm
from lightweight.onnx.shared_biases import rename_shared_biases
from lightweight.onnx.weights import list_weighted_nodes
from lightweight.quantization.by_files import convert_by_files
from lightweight.quantization.calibration import CALIBRATION_METHODS, split_pixels, write_ranges
from lightweight.quantization.params import QuantizeParams
from lightweight.rounding.limiter import SumLimiter
from lightweight.training.history import Epoch, FineTuner

BEFORE_NETWORK = NORMALIZATION | {"input"}  # nodes that read these resize and normalise pixels, in float32
LINEAR_OPERATORS = frozenset({"MatMul", "Gemm"})


class PostTrainingConverter(ABC):
    """Export a network to ONNX and convert it; `layers` maps the layers that can be converted to their nodes.

    `spared` are those of them that stay float32 in every model, `weighted` names all layers that have weights.
    """

    operators: frozenset[str] = LINEAR_OPERATORS | {"Conv"}

    def __init__(self, network: nn.Module, dataset: Dataset) -> None:
        self.network = network
        self.model = self._preprocess(export_onnx(network, dataset))
        weighted = list_weighted_nodes(self.model)
        self.weighted = list(weighted)
        self.layers = {
            name: [node.name for node in nodes]
            for name, nodes in weighted.items()
            if nodes[0].op_type in self.operators
        }
        self.spared: dict[str, list[str]] = {}
        self.limiter = SumLimiter(self.model)
        self.changes = self.limiter.changes
        self.equalized = Equalized(self.model)

    def spare(self, names: Collection[str]) -> None:
        """Leave the named layers in float32 in every model."""
        self.spared |= {name: self.layers.pop(name) for name in names if name in self.layers}

    def train(self, fine_tune: FineTuner) -> Iterable[Epoch]:
        """Train nothing."""
        return ()

    @abstractmethod
    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        """Make the model in which the excluded layers stay float32."""

    def reference(self, excluded: Collection[str]) -> nn.Module:
        """Return the network whose logits the model must reproduce: the one that was exported."""
        return self.network

    def _preprocess(self, exported: onnx.ModelProto) -> onnx.ModelProto:
        """Infer shapes anew: ONNX Runtime's quantizers fail on the shapes that PyTorch's exporter writes."""
        try:
            return convert_by_files(exported, quant_pre_process)
        except Exception:  # symbolic shape inference gives up at some reshapes, with an exception of no class
            return convert_by_files(exported, partial(quant_pre_process, skip_symbolic_shape=True))

    def _limit_sums(self, model: onnx.ModelProto, params: QuantizeParams) -> onnx.ModelProto:
        if params.reduce_range == "auto":
            self.limiter.limit(model)
        return model

    def _nodes_to_exclude(self, excluded: Collection[str]) -> list[str]:
        before = [node.name for node in self.model.graph.node if set(node.input) & BEFORE_NETWORK]
        kept = [*self.spared.values(), *(self.layers[name] for name in excluded)]
        return before + [node for nodes in kept for node in nodes]


class Float32Converter(PostTrainingConverter):
    """Export the network as it is."""

    operators = frozenset()

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        return deepcopy(self.model)

    def _preprocess(self, exported: onnx.ModelProto) -> onnx.ModelProto:
        return exported


class Float16Converter(PostTrainingConverter):
    """Store weights in float16; pixels and logits stay float32, and the CPU computes in float32."""

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        nodes = self._nodes_to_exclude(excluded)
        half = convert_float_to_float16(deepcopy(self.model), keep_io_types=True, node_block_list=nodes)
        unique = {node.output[0]: node for node in half.graph.node}  # a cast is repeated for each node that reads it
        del half.graph.node[:]
        half.graph.node.extend(unique.values())
        ordered = ONNXModel(half)
        ordered.topological_sort()
        return ordered.model


class LinearLayersConverter(PostTrainingConverter):
    """Convert linear layers only, after Gemm became MatMul: the quantizers skip Gemm, or rename what it becomes."""

    operators = LINEAR_OPERATORS

    def _preprocess(self, exported: onnx.ModelProto) -> onnx.ModelProto:
        model = super()._preprocess(exported)
        replace_gemm(model)
        return model


class DynamicConverter(LinearLayersConverter):
    """Quantize linear layers, with ranges of activations found while the file runs.

    Convolutions stay float32: ONNX Runtime's ConvInteger is slower than its float convolution.
    """

    def __init__(self, network: nn.Module, dataset: Dataset, params: QuantizeParams) -> None:
        super().__init__(network, dataset)
        self.params = params

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        quantize = partial(
            quantize_dynamic,
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=self.params.reduce_range is True,
            nodes_to_exclude=self._nodes_to_exclude(excluded),
            op_types_to_quantize=sorted(LINEAR_OPERATORS),
        )
        return self._limit_sums(convert_by_files(self.model, quantize), self.params)


class StaticConverter(PostTrainingConverter):
    """Quantize all layers, with ranges of activations from calibration images."""

    def __init__(self, network: nn.Module, dataset: Dataset, images: Tensor, params: QuantizeParams) -> None:
        """Calibrate on images uint8 (N, C, H, W)."""
        super().__init__(network, dataset)
        rename_shared_biases(self.model)
        self.params = params
        if params.equalize:
            self.equalized = equalize(self.model, partial(split_pixels, images))
            self.model = self.equalized.model
            self.limiter = SumLimiter(self.model)
            self.changes = self.limiter.changes
        with tempfile.TemporaryDirectory() as folder:
            source, ranges = Path(folder) / "source.onnx", Path(folder) / "ranges.json"
            onnx.save(self.model, source)
            write_ranges(source, images, params.calibration, params.percentile, ranges)
            self.ranges = ranges.read_bytes()

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        return self._quantize(self.model, self._nodes_to_exclude(excluded))

    def _quantize(self, model: onnx.ModelProto, nodes_to_exclude: list[str]) -> onnx.ModelProto:
        """Quantize all nodes of a model but those to exclude, by the ranges of the calibration."""

        def quantize(source: Path, target: Path) -> None:
            ranges = source.with_name("ranges.json")
            ranges.write_bytes(self.ranges)
            quantize_static(
                source,
                target,
                calibration_cache_path=ranges,
                calibrate_method=CALIBRATION_METHODS[self.params.calibration],
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=self.params.reduce_range is True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=nodes_to_exclude,
                # OpenCV cannot read integer biases; ONNX Runtime makes them itself where it fuses a layer.
                extra_options={"QuantizeBias": False},
            )

        return self._limit_sums(convert_by_files(model, quantize), self.params)
