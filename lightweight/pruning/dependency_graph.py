"""The dependency graph of a network: which layers lose channels together when channels of one layer are removed.

Residual sums and depthwise convolutions, for example, couple the channels of several layers. The graph is that of
torch-pruning (DepGraph, Fang et al. 2023). `removal_is_consistent` checks its results, because a graph built from one
forward pass does not see every dependency.
"""

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.pruner import function

from lightweight.core.errors import InputError, first_line
from lightweight.core.module_state import forgetting_caches
from lightweight.networks.pruned_shapes import changed_shapes, shrink_to

CHANNEL_LAYERS = (nn.Conv2d, nn.Linear)  # the layers whose channels can be removed
INPUT_PRUNERS = (function.prune_conv_in_channels, function.prune_linear_in_channels)  # remove channels that are read
NORMS_ACROSS_CHANNELS = (nn.LayerNorm, nn.GroupNorm)
GIVES_OUTPUTS = "it gives the network's outputs"
MAX_FACTOR = 4  # times the dependencies, or the widest layer, is what the search for coupled layers may reach
MIN_STEPS, MIN_CHANNELS = 2000, 10_000  # that it may reach in small networks
TOLERANCE = 1e-6  # of the logits, relative to their root mean square, in float64


def build_dependency_graph(model: nn.Module, image: Tensor) -> torch_pruning.DependencyGraph:
    """Build the dependency graph of a network from one forward pass of an image (1, C, H, W).

    Frozen layers are part of the graph. Leaves the model in evaluation mode. Raises InputError that names the layer
    where tracing fails.
    """
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:  # torch-pruning follows gradients
        parameter.requires_grad_(True)
    try:
        model.eval()
        with naming_layer_in_errors(model), warnings.catch_warnings(), forgetting_caches(model), torch.enable_grad():
            warnings.simplefilter("ignore")
            return torch_pruning.DependencyGraph().build_dependency(model, image)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextmanager
def naming_layer_in_errors(model: nn.Module) -> Iterator[None]:
    """Turn an exception of torch-pruning, which may be of any class, into an InputError that names a layer."""
    try:
        yield
    except Exception as error:
        layer = _find_layer(error, {module: name for name, module in model.named_modules() if name})
        place = f" at {layer}" if layer else ""
        reason = f"it cannot be traced{place}: {first_line(error)}"
        raise InputError(f"Channels of the network cannot be pruned: {reason}") from None


def _find_layer(error: Exception, names: dict[nn.Module, str]) -> str | None:
    """Name the layer at which an exception was raised, from the local variables of the functions in its traceback.

    The innermost function comes first. A variable may be the layer itself, a node of the graph for the layer, or the
    node of an operation: then the nearest layer before the operation is named. None if no variable is any of these.
    """
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        queue: list[Any] = list(frame.f_locals.values())
        visited = set()
        while queue:
            value = queue.pop(0)
            module = getattr(value, "module", value)
            if isinstance(module, nn.Module) and module in names:
                return names[module]
            if id(value) not in visited and isinstance(value, torch_pruning.dependency.Node):
                queue += value.inputs
            visited.add(id(value))
    return None


class _BoundedGroup(torch_pruning.dependency.Group):
    """Coupled layers that are found in bounded steps: in some graphs, steps or channels would multiply for ever."""

    max_steps, max_channels = 0, 0

    def add_dep(self, dep: torch_pruning.dependency.Dependency, idxs: list[Any]) -> None:
        """Add a layer that loses the channels `idxs`. Raises OverflowError, with all dependencies, beyond a bound."""
        super().add_dep(dep, idxs)
        if len(self) > self.max_steps or len(idxs) > self.max_channels:
            raise OverflowError([dep for dep, _ in self.items])


def list_groups(
    graph: torch_pruning.DependencyGraph,
) -> Iterator[tuple[list[torch_pruning.dependency.Node], torch_pruning.dependency.Group | None]]:
    """List the nodes that lose output channels together, with their group, or None if a bound ends the search for it.

    A search that ends by itself follows each dependency about once, with no more channels than the widest layer has.
    """
    edges = sum(len(node.dependencies) for node in graph.module2node.values())
    widest = max(size for tensor in graph.model.state_dict().values() for size in tensor.shape)
    bounds = {"max_steps": max(MIN_STEPS, MAX_FACTOR * edges), "max_channels": max(MIN_CHANNELS, MAX_FACTOR * widest)}
    bounded, seen = type("Group", (_BoundedGroup,), bounds), set[Any]()
    for layer in [module for module in graph.module2node if isinstance(module, CHANNEL_LAYERS)]:
        if layer in seen:
            continue
        group = None
        try:
            with patch.object(torch_pruning.dependency.graph, "Group", bounded):
                group = coupled_channels(graph, layer)
            dependencies = [dep for dep, _ in group]
        except OverflowError as error:
            (dependencies,) = error.args
        outputs = [dep.target for dep in dependencies if graph.is_out_channel_pruning_fn(dep.handler)]
        seen |= {node.module for node in outputs}
        yield outputs, group


def coupled_channels(
    graph: torch_pruning.DependencyGraph, layer: nn.Module, channels: list[int] | None = None
) -> torch_pruning.dependency.Group:
    """List the layers that lose channels together with output channels of `layer`, and which channels each loses.

    Without `channels`, all output channels are meant. An item of the group has `dep.target.module`, the layer,
    `dep.handler`, the function that removes its channels, and `idxs`, their indices.
    """
    pruner = graph.get_pruner_of_module(layer)
    indices = list(range(pruner.get_out_channels(layer))) if channels is None else channels
    return graph.get_pruning_group(layer, pruner.prune_out_channels, indices)


def remove_channels(model: nn.Module, image: Tensor, channels: dict[str, list[int]]) -> None:
    """Remove output channels of layers by name, in place, together with all channels that are coupled to them."""
    graph, modules = build_dependency_graph(model, image), dict(model.named_modules())
    for name, indices in channels.items():
        if indices:
            coupled_channels(graph, modules[name], indices).prune()


def reason_to_skip(
    group: torch_pruning.dependency.Group | None, graph: torch_pruning.DependencyGraph, outputs: list[Any]
) -> str | None:
    """Explain why coupled layers cannot lose channels; None if they can. `outputs` are the nodes that compute them."""
    if group is None:
        return "torch-pruning follows its channels through too many steps"
    modules = [dep.target.module for dep, _ in group]
    if any(not node.outputs for node in outputs):
        return GIVES_OUTPUTS
    if any(isinstance(module, nn.Conv2d) and 1 < module.groups < module.in_channels for module in modules):
        return "grouped convolutions must keep their groups"
    if any(isinstance(module, NORMS_ACROSS_CHANNELS) for module in modules):
        return "its channels are normalised together"
    if any(isinstance(module, nn.MultiheadAttention) for module in modules):
        return "attention must keep its heads"
    if len(group[0].idxs) < 2:
        return "it has a single channel"
    if _has_tied_channels(graph, group[0].dep.target.module):
        return "its channels go in pairs or more, as the halves of a gate do"
    return None


def _has_tied_channels(graph: torch_pruning.DependencyGraph, layer: nn.Module) -> bool:
    """Return whether removing the first output channel of `layer` removes other output channels of it as well."""
    removed = {
        channel
        for dep, channels in coupled_channels(graph, layer, [0])
        if dep.target.module is layer and dep.handler not in INPUT_PRUNERS
        for channel in channels
    }
    return len(removed) > 1


@torch.no_grad()
def removal_is_consistent(model: nn.Module, image: Tensor, groups: list[str]) -> bool:
    """Check that removing channel 0 of each group gives the logits of zeroing the weights that read it.

    The network without the channels, and the network that `shrink_to` rebuilds from their shapes alone, must compute
    the logits of the whole network in which the weights that read the channels are zero.
    """
    unread, removed, rebuilt = (deepcopy(model).double().eval() for _ in range(3))
    image = torch.linspace(-1, 1, image.numel(), dtype=torch.float64, device=image.device).view(image.shape)
    graph, modules = build_dependency_graph(unread, image), dict(unread.named_modules())
    try:
        for name in groups:
            for dep, indices in coupled_channels(graph, modules[name], [0]):
                if dep.handler in INPUT_PRUNERS and isinstance(dep.target.module, CHANNEL_LAYERS):
                    dep.target.module.weight[:, indices] = 0
        expected = unread(image)
        remove_channels(removed, image, {name: [0] for name in groups})
        shrink_to(rebuilt, changed_shapes(rebuilt, removed))
        rebuilt.load_state_dict(removed.state_dict())
        logits = [removed(image), rebuilt(image)]
    except Exception:  # raised, for example, by a layer that no longer fits the one before, or lacks a channel
        return False
    limit = (TOLERANCE**2) * expected.square().mean()
    return all(one.shape == expected.shape and bool((one - expected).square().mean() <= limit) for one in logits)
