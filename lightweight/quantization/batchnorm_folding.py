"""A network becomes a graph of PyTorch's operators, in which BatchNorm is part of the layer before it."""

from collections import Counter
from copy import deepcopy

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from lightweight.core.errors import InputError, first_line
from lightweight.core.memory_format import to_memory_format

aten = torch.ops.aten
LAYERS = {
    aten.conv2d.default: fuse_conv_bn_weights,
    aten.conv2d.padding: fuse_conv_bn_weights,
    aten.linear.default: fuse_linear_bn_weights,
}


def capture(model: nn.Module, images: Tensor) -> fx.GraphModule:
    """Raises InputError when the network's path depends on the values of the images."""
    network = to_memory_format(deepcopy(model).eval(), torch.contiguous_format)
    try:
        return torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    except Exception as error:  # of classes that torch.export does not name in its interface
        raise InputError(f"the network cannot be captured as a graph: {first_line(error)}") from None


def layers(graph: fx.GraphModule) -> list[fx.Node]:
    """The convolutions and linear layers whose weights are parameters of that name, which no other node reads."""
    found = [node for node in graph.graph.nodes if node.target in LAYERS and node.args[1].op == "get_attr"]
    readers = Counter(node.args[1].target for node in found)
    return [node for node in found if node.args[1].target.endswith(".weight") and readers[node.args[1].target] == 1]


def fold_batchnorm(graph: fx.GraphModule) -> None:
    """Put every BatchNorm in evaluation mode behind one of the `layers` into its weight and bias, in place.

    One that normalises another dimension than the layer's outputs, or by the statistics of the batch, stays.
    """
    own = set(layers(graph))
    for norm in [node for node in graph.graph.nodes if node.target is aten.batch_norm.default]:
        layer, settings = norm.args[0], [_value(graph, node) for node in norm.args[1:5]]
        flat = layer in own and (layer.target is not aten.linear.default or layer.meta["val"].ndim == 2)
        if not flat or len(layer.users) > 1 or norm.args[5] or settings[2] is None or settings[3] is None:
            continue
        owner = layer.args[1].target.removesuffix(".weight")
        image, weight, bias, *rest = (*layer.args, None)[: max(3, len(layer.args))]
        scale = torch.ones_like(settings[2]) if settings[0] is None else settings[0]
        shift = torch.zeros_like(settings[2]) if settings[1] is None else settings[1]
        values = (_value(graph, weight), _value(graph, bias), *settings[2:])
        fused = LAYERS[layer.target](*values, norm.args[7], scale, shift)
        module = graph.get_submodule(owner)
        module.weight, module.bias = (nn.Parameter(value.detach()) for value in fused)
        with graph.graph.inserting_before(layer):
            layer.args = (image, weight, graph.graph.get_attr(f"{owner}.bias"), *rest)
        norm.replace_all_uses_with(layer)
        graph.graph.erase_node(norm)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _value(graph: fx.GraphModule, node: fx.Node | None) -> Tensor | None:
    """What the node reads of the module; None for a bias or a scale that the layer does not have."""
    if node is None:
        return None
    owner, _, name = node.target.rpartition(".")
    return getattr(graph.get_submodule(owner), name).detach()
