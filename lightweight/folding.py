"""A network becomes a graph of PyTorch's operators, in which BatchNorm is part of the layer before it."""

from copy import deepcopy

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from lightweight.errors import InputError

aten = torch.ops.aten
LAYERS = {aten.conv2d.default: fuse_conv_bn_weights, aten.linear.default: fuse_linear_bn_weights}


def capture(model: nn.Module, images: Tensor) -> fx.GraphModule:
    """Raises InputError when the network's path depends on the values of the images."""
    network = deepcopy(model).eval().to(memory_format=torch.contiguous_format)
    try:
        return torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    except Exception as error:  # of classes that torch.export does not name in its interface
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"the network cannot be captured as a graph: {reason}") from None


def fold_batchnorm(graph: fx.GraphModule) -> None:
    """Put every BatchNorm in evaluation mode behind a layer into that layer's weight and bias, in place."""
    for norm in [node for node in graph.graph.nodes if node.target is aten.batch_norm.default]:
        layer = norm.args[0]
        if layer.target not in LAYERS or len(layer.users) > 1:
            continue
        owner, _, _ = layer.args[1].target.rpartition(".")
        image, weight, bias, *rest = (*layer.args, None)[: max(3, len(layer.args))]
        values = [_value(graph, node) for node in (weight, bias, *norm.args[1:5])]
        scale, shift, mean, variance = values[2:]
        module = graph.get_submodule(owner)
        fused = LAYERS[layer.target](*values[:2], mean, variance, norm.args[7], scale, shift)
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
