"""Which layers lose a channel together: residual sums and depthwise convolutions couple them.

By torch-pruning's dependency graph (DepGraph, Fang et al. 2023), whose findings are checked before they are used.
"""

import traceback
import warnings
from copy import deepcopy
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.pruner import function

from lightweight.errors import InputError

ROOTS = [nn.Conv2d, nn.Linear]
INPUTS = (function.prune_conv_in_channels, function.prune_linear_in_channels)
MIXING = (nn.LayerNorm, nn.GroupNorm)  # a channel that is gone changes the statistics of the others
TOLERANCE = 1e-6  # of the logits' root mean square, in float64


def trace(model: nn.Module, image: Tensor) -> torch_pruning.DependencyGraph:
    """Raises InputError that names the layer where it fails."""
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            return torch_pruning.DependencyGraph().build_dependency(model.eval(), image)
    except Exception as error:  # the library raises whatever it meets
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        where = _where(error, {module: name for name, module in model.named_modules() if name})
        raise InputError(f"channels of the network cannot be pruned: it cannot be traced{where}: {reason}") from None


def _where(error: Exception, names: dict[nn.Module, str]) -> str:
    """The layer that the innermost function had in hand."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for value in frame.f_locals.values():
            module = getattr(value, "module", value)
            if isinstance(module, nn.Module) and module in names:
                return f" at {names[module]}"
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
    if any(isinstance(module, nn.MultiheadAttention) for module in modules):
        return "attention must keep its heads"
    if len(group[0].idxs) < 2:
        return "it has a single channel"
    return None


@torch.no_grad()
def is_consistent(model: nn.Module, image: Tensor, units: list[str]) -> bool:
    """Whether the network without the first channel of the units computes what it does where nothing reads these."""
    unread, without = (deepcopy(model).double().eval() for _ in range(2))
    image = torch.linspace(-1, 1, image.numel(), dtype=torch.float64, device=image.device).view(image.shape)
    graph, modules = trace(unread, image), dict(unread.named_modules())
    for name in units:
        for dep, idxs in coupled(graph, modules[name], [0]):
            if dep.handler in INPUTS and isinstance(dep.target.module, tuple(ROOTS)):
                dep.target.module.weight[:, idxs] = 0
            elif isinstance(dep.target.module, MIXING):
                return True
    try:
        remove(without, image, {name: [0] for name in units})
        found = without(image)
    except Exception:  # of a layer that no longer fits the one before
        return False
    expected = unread(image)
    same = found.shape == expected.shape
    return same and bool((found - expected).square().mean() <= (TOLERANCE**2) * expected.square().mean())
