"""Quantization-aware training: fake quantization at the places where ONNX Runtime will fuse integer operators.

Fake quantization after Jacob et al. 2018 by torchao's export flow (pt2e), with BatchNorm folded into the layers before
it. Every layer's input, weight and output, and both sides of a residual sum, are rounded: ONNX Runtime multiplies in
8 bits only where all of them are.
"""

import warnings
from collections.abc import Collection, Iterator
from copy import deepcopy
from typing import Self

import onnx
import torch
from torch import Tensor, fx, nn
from torchao.quantization.pt2e import (
    FusedMovingAvgObsFakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    disable_observer,
    enable_observer,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from lightweight.data.dataset import Dataset
from lightweight.onnx.export import export_onnx
from lightweight.onnx.gemm import transpose_weights
from lightweight.quantization.batchnorm_folding import (
    FUSE_BATCHNORM,
    FxModule,
    capture,
    fold_batchnorm,
    list_layer_nodes,
    weight_name,
)
from lightweight.quantization.params import ReduceRange
from lightweight.quantization.weight_names import rename_weights
from lightweight.rounding.observer import LimitedSumFakeQuantize
from lightweight.training.history import Epoch, FineTuner

aten = torch.ops.aten
SUMS = {aten.add.Tensor, aten.add_.Tensor, aten.mul.Tensor, aten.mul_.Tensor}
FUSED_ACTIVATIONS = {aten.relu.default, aten.relu_.default}  # ONNX Runtime takes them into the layer before
RANGE_PRESERVING = {  # the output has the range of the input
    aten.max_pool2d.default, aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default, aten.dropout.default,
    aten.flatten.using_ints, aten.reshape.default, aten.view.default,
}  # fmt: skip
ROUNDED = {*FUSE_BATCHNORM, *SUMS, *FUSED_ACTIVATIONS, *RANGE_PRESERVING}
BATCH_SIZE = 64
ANNOTATION = "quantization_annotation"  # the key under which torchao looks for it in the notes of a node


class FakeQuantModule(FxModule):
    """Wrap a graph with fake quantization, which observes the ranges of activations in training mode only."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode, and switch the observers of ranges on or off."""
        if not mode:
            self.graph.apply(_update_scale)
        self.graph.apply(enable_observer if mode else disable_observer)
        return super().train(mode)


@torch.no_grad()
def _update_scale(module: nn.Module) -> None:
    """Compute scale and zero point of an activation anew from its range, which is a mean where batches have shards."""
    if not isinstance(module, FusedMovingAvgObsFakeQuantize) or module.is_per_channel:
        return
    observer = module.activation_post_process
    if observer.min_val.isfinite():
        on, blank = torch.ones_like(module.observer_enabled), torch.zeros(1)  # which moves the range by a share of 0
        torch.fused_moving_avg_obs_fake_quant(
            blank, on, module.fake_quant_enabled, observer.min_val, observer.max_val, module.scale, module.zero_point,
            0.0, observer.quant_min, observer.quant_max, module.ch_axis, False, False,
        )  # fmt: skip


class QATConverter:
    """Train a network with fake quantization and convert it; `layers` maps quantized layers to their graph nodes."""

    def __init__(self, network: nn.Module, dataset: Dataset, images: Tensor, reduce_range: ReduceRange) -> None:
        """Take the ranges that training begins with from images uint8 (N, C, H, W).

        Where `reduce_range` is true, integer weights have one bit less; by auto, steps are so wide that no sum is cut.
        """
        self.dataset, self.changes = dataset, dict[str, tuple[int, float]]()
        graph = capture(network, dataset.blank(2))
        fold_batchnorm(graph)
        self.layers = {weight_name(node).removesuffix(".weight"): node.name for node in list_layer_nodes(graph)}
        self.weighted = list(self.layers)
        self.module = FakeQuantModule(prepare_qat_pt2e(graph, _Annotator(reduce_range)))
        self.module.train()
        with torch.no_grad():
            for batch in images.split(BATCH_SIZE):
                self.module(dataset.normalize(batch))
        self.module.eval()

    def spare(self, names: Collection[str]) -> None:
        """Train and convert the network without rounding in the named layers."""
        _remove_rounding(self.module.graph, {self.layers.pop(name) for name in names})

    def train(self, fine_tune: FineTuner) -> Iterator[Epoch]:
        """Train with fake quantization and yield a row per epoch; weights that are zero stay zero."""
        zeros = {name: weight == 0 for name, weight in self.module.named_parameters() if weight.ndim > 1}

        @torch.no_grad()
        def apply_masks(done: float) -> None:
            for name, weight in self.module.named_parameters():
                if name in zeros:
                    weight.masked_fill_(zeros[name], 0)

        yield from fine_tune(self.module, 1, apply_masks)
        self.module.eval()
        self.module(self.dataset.normalize(self.dataset.blank(2)))  # steps follow from the weights at the end

    def reference(self, excluded: Collection[str]) -> nn.Module:
        """Return the network with fake quantization, except in the excluded layers."""
        with warnings.catch_warnings(action="ignore"):  # torch warns of its own deprecations
            module = deepcopy(self.module)
        _remove_rounding(module.graph, {self.layers[name] for name in excluded})
        return module

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        """Make the model of the trained network in which the excluded layers stay float32."""
        with warnings.catch_warnings(action="ignore"):
            model = export_onnx(FxModule(convert_pt2e(self.reference(excluded).graph)), self.dataset)
        rename_weights(model, [name for name in self.layers if name not in set(excluded)])
        transpose_weights(model)
        return model


class _Annotator(Quantizer):
    """Tell torchao what to round: activations to uint8, weights to int8 from -largest to largest in each channel."""

    def __init__(self, reduce_range: ReduceRange) -> None:
        self.largest, self.limits_sums = 63 if reduce_range is True else 127, reduce_range == "auto"
        fake_quantize = FusedMovingAvgObsFakeQuantize.with_args
        self.activation = QuantizationSpec(
            torch.uint8, fake_quantize(observer=MovingAverageMinMaxObserver), 0, 255, torch.per_tensor_affine
        )

    def _weight(self, layer: fx.Node) -> QuantizationSpec:
        """Tell how the weight of a layer is rounded."""
        if self.limits_sums:
            image, weight = (node.meta["val"].shape for node in layer.all_input_nodes[:2])
            groups = int(image[1]) // weight[1] if len(weight) > 2 else 1
            round_weight = LimitedSumFakeQuantize.with_args(shape=tuple(weight), groups=groups)
        else:
            observer = MovingAveragePerChannelMinMaxObserver
            round_weight = FusedMovingAvgObsFakeQuantize.with_args(observer=observer, averaging_constant=1.0)
        largest = self.largest
        return QuantizationSpec(torch.int8, round_weight, -largest, largest, torch.per_channel_symmetric, 0)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Note at every layer, sum and range-preserving node which of its inputs and outputs are rounded."""
        layers = set(list_layer_nodes(model))
        for node in model.graph.nodes:
            if node in layers or (node.target in SUMS and node.meta["val"].is_floating_point()):
                inputs = [value for value in node.args[:2] if isinstance(value, fx.Node)]
                specs = [self.activation, self._weight(node) if node in layers else self.activation]
                node.meta[ANNOTATION] = QuantizationAnnotation(dict(zip(inputs, specs, strict=False)), _annotated=True)
                users = list(node.users)
                last = users[0] if len(users) == 1 and users[0].target in FUSED_ACTIVATIONS else node
                annotation = last.meta.setdefault(ANNOTATION, QuantizationAnnotation(_annotated=True))
                annotation.output_qspec = self.activation
            elif node.target in RANGE_PRESERVING:
                shared = SharedQuantizationSpec((node.args[0], node))
                node.meta[ANNOTATION] = QuantizationAnnotation({node.args[0]: self.activation}, shared, _annotated=True)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Accept every graph."""


def _remove_rounding(graph: fx.GraphModule, names: Collection[str]) -> None:
    """Let the named nodes take their weights as they are, and inputs that no other layer has rounded, in place."""
    for node in [node for node in graph.graph.nodes if node.name in names]:
        image, weight = node.args[:2]
        node.replace_input_with(weight, weight.args[0])
        if image.args[0].target not in ROUNDED:
            node.replace_input_with(image, image.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()
