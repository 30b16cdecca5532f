"""Quantization-aware training: weights learn to be right after rounding, in the graph that ONNX Runtime will fuse.

Fake quantization after Jacob et al. 2018 by torchao's export flow (pt2e), with BatchNorm folded into the layers before
it. Every layer's input, weight and output, and both sides of a residual sum, are rounded: the runtime multiplies in
8 bits only where all of them are.
"""

import warnings
from collections.abc import Collection, Iterator
from copy import deepcopy

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

from lightweight.dataset import Dataset
from lightweight.onnx.export import export_onnx
from lightweight.quantization.batchnorm_folding import LAYERS, capture, fold_batchnorm, layers
from lightweight.quantization.weight_names import name_weights
from lightweight.training.history import Epoch, FineTuner

aten = torch.ops.aten
SUMS = {aten.add.Tensor, aten.add_.Tensor, aten.mul.Tensor, aten.mul_.Tensor}
ACTIVATIONS = {aten.relu.default, aten.relu_.default}  # which the runtime takes into the layer before
UNCHANGED = {  # of values: their output has the range of their input
    aten.max_pool2d.default, aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default, aten.dropout.default,
    aten.flatten.using_ints, aten.reshape.default, aten.view.default,
}  # fmt: skip
ROUNDED = {*LAYERS, *SUMS, *ACTIVATIONS, *UNCHANGED}
BITS = {False: 127, True: 63}  # the largest weight, by reduce_range
KEY = "quantization_annotation"


class FxModule(nn.Module):
    """A captured graph, which itself refuses `train` and `eval` and needs neither."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, images: Tensor) -> Tensor:
        return self.graph(images)

    def train(self, mode: bool = True) -> "FxModule":
        self.training = mode
        return self


class FakeQuantModule(FxModule):
    """A network whose ranges are observed while it trains, and only then."""

    def train(self, mode: bool = True) -> "FxModule":
        self.graph.apply(enable_observer if mode else disable_observer)
        return super().train(mode)


class QATConverter:
    """`layers` names what is rounded by the nodes of the graph; `convert` takes names of those that stay float32."""

    def __init__(self, model: nn.Module, dataset: Dataset, images: Tensor, reduce_range: bool) -> None:
        """The ranges that training begins with are of images uint8 (N, C, H, W)."""
        self.dataset = dataset
        graph = capture(model, dataset.blank(2))
        fold_batchnorm(graph)
        self.layers = {node.args[1].target.removesuffix(".weight"): node.name for node in layers(graph)}
        self.module = FakeQuantModule(prepare_qat_pt2e(graph, _Annotator(BITS[reduce_range])))
        self.module.train()
        with torch.no_grad():
            for batch in images.split(64):
                self.module(dataset.normalize(batch))
        self.module.eval()

    def train(self, fine_tune: FineTuner) -> Iterator[Epoch]:
        """Train the network with rounding and yield a row of the history per epoch; weights at zero stay there."""
        zeros = {name: weight == 0 for name, weight in self.module.named_parameters() if weight.ndim > 1}

        @torch.no_grad()
        def hold(done: float) -> None:
            for name, weight in self.module.named_parameters():
                if name in zeros:
                    weight.masked_fill_(zeros[name], 0)

        yield from fine_tune(self.module, 1, hold)
        self.module.eval()

    def reference(self, excluded: Collection[str]) -> nn.Module:
        """What the file must agree with: the network with rounding, but for the layers that are kept."""
        with warnings.catch_warnings(action="ignore"):  # of torch about itself
            module = deepcopy(self.module)
        _without(module.graph, {self.layers[name] for name in excluded})
        return module

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto:
        with warnings.catch_warnings(action="ignore"):
            model = export_onnx(FxModule(convert_pt2e(self.reference(excluded).graph)), self.dataset)
        name_weights(model, [name for name in self.layers if name not in set(excluded)])
        return model


class _Annotator(Quantizer):
    """What is rounded: uint8 activations, int8 weights from -largest to largest in each output channel."""

    def __init__(self, largest: int) -> None:
        fake = FusedMovingAvgObsFakeQuantize.with_args
        self.activation = QuantizationSpec(
            torch.uint8, fake(observer=MovingAverageMinMaxObserver), 0, 255, torch.per_tensor_affine
        )
        weight = fake(observer=MovingAveragePerChannelMinMaxObserver, averaging_constant=1.0)
        self.weight = QuantizationSpec(torch.int8, weight, -largest, largest, torch.per_channel_symmetric, 0)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        own = set(layers(model))
        for node in model.graph.nodes:
            if node in own or (node.target in SUMS and node.meta["val"].is_floating_point()):
                taken = [value for value in node.args[:2] if isinstance(value, fx.Node)]
                specs = [self.activation, self.weight if node in own else self.activation]
                node.meta[KEY] = QuantizationAnnotation(dict(zip(taken, specs, strict=False)), _annotated=True)
                users = list(node.users)
                last = users[0] if len(users) == 1 and users[0].target in ACTIVATIONS else node
                note = last.meta.setdefault(KEY, QuantizationAnnotation(_annotated=True))
                note.output_qspec = self.activation
            elif node.target in UNCHANGED:
                shared = SharedQuantizationSpec((node.args[0], node))
                node.meta[KEY] = QuantizationAnnotation({node.args[0]: self.activation}, shared, _annotated=True)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        pass


def _without(graph: fx.GraphModule, names: Collection[str]) -> None:
    """Let the named nodes take their weights as they are, and inputs that no other layer has rounded, in place."""
    for node in [node for node in graph.graph.nodes if node.name in names]:
        image, weight = node.args[:2]
        node.replace_input_with(weight, weight.args[0])
        if image.args[0].target not in ROUNDED:
            node.replace_input_with(image, image.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()
