"""Structured pruning removes whole channels: what is left is a smaller network of the same kind, and a faster one.

Which layers lose a channel together (residual sums, depthwise convolutions) is found by torch-pruning's dependency
graph (DepGraph, Fang et al. 2023).
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
from lightweight.importance import Importance
from lightweight.macs import count_macs
from lightweight.narrowing import narrow, narrowed

ROOTS = [nn.Conv2d, nn.Linear]
INPUTS = (function.prune_conv_in_channels, function.prune_linear_in_channels)
MIXING = (nn.LayerNorm, nn.GroupNorm)  # a channel that is gone changes the statistics of the others
TOLERANCE = 1e-6  # of the logits' root mean square, in float64


class Channels:
    """The channels of a network in units that must lose the same ones; a unit bears the name of its first layer.

    `sizes` counts the channels of the dense network, `members` names the layers of each unit, `skipped` says why a
    layer is in none. Its outputs are no unit. Raises InputError when the network cannot be traced.
    """

    def __init__(self, model: nn.Module, image: Tensor, round_to: int) -> None:
        self.model, self.image, self.round_to = model, image, round_to
        self.dense = deepcopy(model).to("meta")
        self.skipped: dict[str, str] = {}
        self.zeroed: dict[str, list[int]] = {}
        self.zeros: list[tuple[nn.Module, list[int]]] = []  # the same in every layer of the units
        names = {module: name for name, module in model.named_modules()}
        graph = _trace(model, image)
        order, found = list(names.values()), {}
        for group in graph.get_all_groups(root_module_types=ROOTS):
            outputs = [dep.target for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)]
            layers = [names[node.module] for node in outputs if isinstance(node.module, tuple(ROOTS))]
            if reason := _unfit(group, graph, outputs):
                self.skipped |= dict.fromkeys(layers, reason)
            else:
                found[min(layers, key=order.index)] = len(group[0].idxs), sorted(layers, key=order.index)
        units = sorted(found, key=order.index)
        self.sizes, self.members = ({name: found[name][part] for name in units} for part in (0, 1))
        reached = {name for module, name in names.items() if module in graph.module2node}
        for name, module in model.named_modules():
            if isinstance(module, tuple(ROOTS)) and name not in reached:
                self.skipped[name] = "no gradient comes from the outputs to it"
        self._drop_inconsistent()

    def _drop_inconsistent(self) -> None:
        """Skip the units whose channels do more than their layers' inputs say, one by one if need be."""
        if not _is_consistent(self.model, self.image, list(self.sizes)):
            for name in list(self.sizes):
                if not _is_consistent(self.model, self.image, [name]):
                    reason = "without a channel the others are no longer where the next layers expect them"
                    self.skipped |= dict.fromkeys(self.members.pop(name), reason)
                    del self.sizes[name]

    def restrict(self, units: list[str]) -> None:
        """Leave the others alone."""
        self.sizes = {name: self.sizes[name] for name in units}
        self.members = {name: self.members[name] for name in units}

    def possible(self, count: int, size: int) -> int:
        """How many of `size` channels can be removed where `count` are wanted: a multiple of `round_to` stays."""
        kept = max(1, round((size - count) / self.round_to)) * self.round_to
        return size - min(size, kept)

    def scores(self, importance: Importance) -> dict[str, Tensor]:
        """The importance of every channel that is left (channels,), in each unit; of those at zero below all others."""
        function, found = importance.of_channels(), {}
        graph, modules = _trace(self.model, self.image), dict(self.model.named_modules())
        for name in self.sizes:
            found[name] = function(_group(graph, modules[name])).cpu()
            found[name][self.zeroed.get(name, [])] = -1
        return found

    def zero(self, counts: dict[str, int], scores: dict[str, Tensor]) -> None:
        """Zero channels until so many of each unit's are gone or zero, the least important first."""
        for name, count in counts.items():
            gone = self.sizes[name] - len(scores[name])
            least = scores[name].topk(max(0, count - gone), largest=False).indices
            self.zeroed[name] = sorted(least.tolist())
        self.zeros = self._layers()
        self.hold()

    def _layers(self) -> list[tuple[nn.Module, list[int]]]:
        """The layers of every unit with the channels that are zero in them."""
        graph, modules = _trace(self.model, self.image), dict(self.model.named_modules())
        groups = [_group(graph, modules[name], channels) for name, channels in self.zeroed.items() if channels]
        return [
            (dep.target.module, idxs)
            for group in groups
            for dep, idxs in group
            if graph.is_out_channel_pruning_fn(dep.handler) and hasattr(dep.target.module, "weight")
        ]

    @torch.no_grad()
    def hold(self) -> None:
        """Keep in training what is zero at zero."""
        for module, channels in self.zeros:
            for parameter in (module.weight, getattr(module, "bias", None)):
                if parameter is not None:
                    parameter[channels] = 0

    def finish(self) -> None:
        """Remove the channels that are zero."""
        _remove(self.model, self.image, self.zeroed)
        self.model.to(memory_format=torch.channels_last)
        self.reset()

    def reset(self) -> None:
        """Let channels at zero change again."""
        self.zeroed, self.zeros = {}, []

    def release(self) -> None:
        """Nothing of this is left in the network."""

    def cost(self, counts: dict[str, int], kind: str) -> float:
        """The share of "parameters" or "macs" of the dense network that is left without so many channels."""
        smaller = deepcopy(self.model)
        _remove(smaller, self.image, {name: list(range(count)) for name, count in counts.items()})
        return _total(smaller, self.image, kind) / _total(self.model, self.image, kind)

    def state_dict(self) -> dict[str, Any]:
        return {"shapes": narrowed(self.dense, self.model), "zeroed": self.zeroed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        narrow(self.model, state["shapes"])
        self.zeroed = state["zeroed"]
        self.zeros = self._layers()


def _trace(model: nn.Module, image: Tensor) -> torch_pruning.DependencyGraph:
    """Raises InputError that names the layer where it fails."""
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            return torch_pruning.DependencyGraph().build_dependency(model.eval(), image)
    except Exception as error:  # the library raises whatever it meets
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        where = _where(error, {module: name for name, module in model.named_modules() if name})
        raise InputError(f"prune.method = 'structured': the network cannot be traced{where}: {reason}") from None


def _where(error: Exception, names: dict[nn.Module, str]) -> str:
    """The layer that the innermost function had in hand."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for value in frame.f_locals.values():
            module = getattr(value, "module", value)
            if isinstance(module, nn.Module) and module in names:
                return f" at {names[module]}"
    return ""


def _group(graph: torch_pruning.DependencyGraph, root: nn.Module, channels: list[int] | None = None) -> Any:
    pruner = graph.get_pruner_of_module(root)
    chosen = list(range(pruner.get_out_channels(root))) if channels is None else channels
    return graph.get_pruning_group(root, pruner.prune_out_channels, chosen)


def _remove(model: nn.Module, image: Tensor, channels: dict[str, list[int]]) -> None:
    graph, modules = _trace(model, image), dict(model.named_modules())
    for name, chosen in channels.items():
        if chosen:
            _group(graph, modules[name], chosen).prune()


def _total(model: nn.Module, image: Tensor, kind: str) -> int:
    return count_macs(model, image) if kind == "macs" else sum(tensor.numel() for tensor in model.parameters())


def _unfit(group: Any, graph: torch_pruning.DependencyGraph, outputs: list[Any]) -> str | None:
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
def _is_consistent(model: nn.Module, image: Tensor, units: list[str]) -> bool:
    """Whether the network without the first channel of the units computes what it does where nothing reads these."""
    unread, without = (deepcopy(model).double().eval() for _ in range(2))
    image = torch.linspace(-1, 1, image.numel(), dtype=torch.float64, device=image.device).view(image.shape)
    graph, modules = _trace(unread, image), dict(unread.named_modules())
    for name in units:
        for dep, idxs in _group(graph, modules[name], [0]):
            if dep.handler in INPUTS and isinstance(dep.target.module, tuple(ROOTS)):
                dep.target.module.weight[:, idxs] = 0
            elif isinstance(dep.target.module, MIXING):
                return True
    try:
        _remove(without, image, {name: [0] for name in units})
        found = without(image)
    except Exception:  # of a layer that no longer fits the one before
        return False
    expected = unread(image)
    same = found.shape == expected.shape
    return same and bool((found - expected).square().mean() <= (TOLERANCE**2) * expected.square().mean())
