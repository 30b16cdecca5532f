"""Capture a network as a graph of PyTorch's operators, and fold BatchNorm into the layer before it."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from lightweight.core.errors import InputError, first_line
from lightweight.core.memory_format import to_memory_format

aten = torch.ops.aten
FUSE_BATCHNORM: dict[Any, Callable[..., tuple[nn.Parameter, nn.Parameter]]] = {
    aten.conv2d.default: fuse_conv_bn_weights,
    aten.conv2d.padding: fuse_conv_bn_weights,
    aten.linear.default: fuse_linear_bn_weights,
}


class FxModule(nn.Module):
    """Wrap a captured graph, which itself refuses `train` and `eval` and needs neither."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (N, classes) from normalised images (N, C, H, W)."""
        return self.graph(images)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module and leave the graph as it is."""
        self.training = mode
        return self


def capture(model: nn.Module, images: Tensor) -> fx.GraphModule:
    """Capture the graph of a copy of `model` in evaluation mode, for any number of images like these (N, C, H, W).

    Raises InputError when the network's path depends on the values of the images.
    """
    network = to_memory_format(deepcopy(model).eval(), torch.contiguous_format)
    try:
        return torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    except Exception as error:  # of classes that torch.export does not name in its interface
        raise InputError(f"The network cannot be captured as a graph: {first_line(error)}") from None


def list_layer_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """List the convolutions and linear layers whose weight is a parameter `NAME.weight` that no other layer reads."""
    nodes = [node for node in graph.graph.nodes if node.target in FUSE_BATCHNORM and node.args[1].op == "get_attr"]
    readers = Counter(weight_name(node) for node in nodes)
    return [node for node in nodes if weight_name(node).endswith(".weight") and readers[weight_name(node)] == 1]


def weight_name(layer: fx.Node) -> str:
    """Return the name of the parameter that a convolution or linear layer reads as its weight."""
    weight = layer.args[1]
    assert isinstance(weight, fx.Node)
    return str(weight.target)


def fold_batchnorm(graph: fx.GraphModule) -> None:
    """Fold every BatchNorm in evaluation mode into the weight and bias of the layer before it, in place.

    A BatchNorm stays if it normalises another dimension than the layer's outputs, or by the statistics of the batch, or
    if the layer is none of `list_layer_nodes` or has other readers.
    """
    layers = set(list_layer_nodes(graph))
    for norm in [node for node in graph.graph.nodes if node.target is aten.batch_norm.default]:
        layer, training, epsilon = norm.args[0], norm.args[5], norm.args[7]
        scale, shift, mean, variance = (_read(graph, node) for node in norm.args[1:5])
        if layer not in layers or len(layer.users) > 1 or training or mean is None or variance is None:
            continue
        if layer.target is aten.linear.default and layer.meta["val"].ndim != 2:
            continue
        image, weight, bias, *rest = (*layer.args, None)[: max(3, len(layer.args))]
        fused = FUSE_BATCHNORM[layer.target](
            _read(graph, weight),
            _read(graph, bias),
            mean,
            variance,
            epsilon,
            torch.ones_like(mean) if scale is None else scale,
            torch.zeros_like(mean) if shift is None else shift,
        )
        name = weight_name(layer).removesuffix(".weight")
        module = graph.get_submodule(name)
        module.weight, module.bias = (nn.Parameter(value.detach()) for value in fused)
        with graph.graph.inserting_before(layer):
            layer.args = (image, weight, graph.graph.get_attr(f"{name}.bias"), *rest)
        norm.replace_all_uses_with(layer)
        graph.graph.erase_node(norm)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _read(graph: fx.GraphModule, node: fx.Node | None) -> Tensor | None:
    """Read the tensor of the module that a node stands for; None for a bias or a scale that the layer does not have."""
    if node is None:
        return None
    module, _, name = str(node.target).rpartition(".")
    return getattr(graph.get_submodule(module), name).detach()
