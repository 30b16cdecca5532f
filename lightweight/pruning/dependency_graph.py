"""Which layers lose a channel together: residual sums and depthwise convolutions couple them.

By torch-pruning's dependency graph (DepGraph, Fang et al. 2023), whose findings are checked before they are used.
"""

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.pruner import function

from lightweight.core.errors import InputError, first_line
from lightweight.networks.pruned_shapes import changed_shapes, shrink_to

ROOTS = [nn.Conv2d, nn.Linear]
INPUTS = (function.prune_conv_in_channels, function.prune_linear_in_channels)
MIXING = (nn.LayerNorm, nn.GroupNorm)
TOLERANCE = 1e-6  # of the logits' root mean square, in float64


def trace(model: nn.Module, image: Tensor) -> torch_pruning.DependencyGraph:
    """The graph, in which frozen layers count as well. Raises InputError that names the layer where it fails."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with tracing(model), warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            return torch_pruning.DependencyGraph().build_dependency(model.eval(), image)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextmanager
def tracing(model: nn.Module) -> Iterator[None]:
    """Turns what torch-pruning raises, which may be anything, into an InputError that names a layer of the model."""
    try:
        yield
    except Exception as error:
        where = _where(error, {module: name for name, module in model.named_modules() if name})
        reason = f"it cannot be traced{where}: {first_line(error)}"
        raise InputError(f"channels of the network cannot be pruned: {reason}") from None


def _where(error: Exception, names: dict[nn.Module, str]) -> str:
    """The layer that the innermost function had in hand, or that is nearest before the operation that it had."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        near, seen = list(frame.f_locals.values()), set()
        while near:
            value = near.pop(0)
            module = getattr(value, "module", value)
            if isinstance(module, nn.Module) and module in names:
                return f" at {names[module]}"
            if id(value) not in seen and isinstance(value, torch_pruning.dependency.Node):
                near += value.inputs
            seen.add(id(value))
    return ""


def coupled(graph: torch_pruning.DependencyGraph, root: nn.Module, channels: list[int] | None = None) -> Any:
    """The layers that lose channels of `root` (by default all) with it, and which ones each loses."""
    pruner = graph.get_pruner_of_module(root)
    chosen = list(range(pruner.get_out_channels(root))) if channels is None else channels
    return graph.get_pruning_group(root, pruner.prune_out_channels, chosen)


def remove(model: nn.Module, image: Tensor, channels: dict[str, list[int]]) -> None:
    """Remove channels of layers by name in place, and all that is coupled to them."""
    graph, modules = trace(model, image), dict(model.named_modules())
    for name, chosen in channels.items():
        if chosen:
            coupled(graph, modules[name], chosen).prune()


def unfit(group: Any, graph: torch_pruning.DependencyGraph, outputs: list[Any]) -> str | None:
    """Why a group of coupled layers cannot lose channels."""
    if any(not node.outputs for node in outputs):
        return "it gives the network's outputs"
    modules = [dep.target.module for dep, _ in group]
    if any(isinstance(module, nn.Conv2d) and 1 < module.groups < module.in_channels for module in modules):
        return "grouped convolutions must keep their groups"
    if any(isinstance(module, MIXING) for module in modules):
        return "its channels are normalised together"
    if any(isinstance(module, nn.MultiheadAttention) for module in modules):
        return "attention must keep its heads"
    if len(group[0].idxs) < 2:
        return "it has a single channel"
    if _tied(graph, group[0].dep.target.module):
        return "its channels go in pairs or more, as the halves of a gate do"
    return None


def _tied(graph: torch_pruning.DependencyGraph, root: nn.Module) -> bool:
    """Whether the first channel of `root` takes others of `root` with it."""
    found = {
        channel
        for dep, channels in coupled(graph, root, [0])
        if dep.target.module is root and dep.handler not in INPUTS
        for channel in channels
    }
    return len(found) > 1


@torch.no_grad()
def is_consistent(model: nn.Module, image: Tensor, groups: list[str]) -> bool:
    """Whether the network without the first channel of the units computes what it does where nothing reads these.

    The same must hold of the network that is rebuilt from the shapes alone.
    """
    unread, without, rebuilt = (deepcopy(model).double().eval() for _ in range(3))
    image = torch.linspace(-1, 1, image.numel(), dtype=torch.float64, device=image.device).view(image.shape)
    graph, modules = trace(unread, image), dict(unread.named_modules())
    for name in groups:
        with tracing(unread):
            group = coupled(graph, modules[name], [0])
        for dep, idxs in group:
            if dep.handler in INPUTS and isinstance(dep.target.module, tuple(ROOTS)):
                dep.target.module.weight[:, idxs] = 0
    expected = unread(image)
    try:
        remove(without, image, {name: [0] for name in groups})
        shrink_to(rebuilt, changed_shapes(rebuilt, without))
        rebuilt.load_state_dict(without.state_dict())
        found = [without(image), rebuilt(image)]
    except Exception:  # of a layer that no longer fits the one before
        return False
    limit = (TOLERANCE**2) * expected.square().mean()
    return all(one.shape == expected.shape and bool((one - expected).square().mean() <= limit) for one in found)
