"""Structured pruning removes whole channels: what is left is a smaller network of the same kind, and a faster one."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lightweight.core.memory_format import to_memory_format
from lightweight.macs import count_macs
from lightweight.networks.pruned_shapes import changed_shapes, shrink_to
from lightweight.pruning.dependency_graph import INPUTS, ROOTS, coupled, is_consistent, remove, trace, tracing, unfit
from lightweight.pruning.importance import Importance


class ChannelGroups:
    """The channels of a network in units that must lose the same ones; a unit bears the name of its first layer.

    `sizes` counts the channels of the dense network, `members` names the layers of each unit, `skipped` says why a
    layer is in none. Its outputs are no unit. Raises InputError when the network cannot be traced.
    """

    def __init__(self, model: nn.Module, image: Tensor, round_to: int) -> None:
        self.model, self.image, self.round_to = model, image, round_to
        self.dense = deepcopy(model).to("meta")
        self.skipped: dict[str, str] = {}
        self.masked: dict[str, list[int]] = {}
        self.zeros: list[tuple[nn.Module, list[int], bool]] = []  # the same in every layer of the units
        names = {module: name for name, module in model.named_modules()}
        graph = trace(model, image)
        order, found = list(names.values()), {}
        with tracing(model):
            groups = list(graph.get_all_groups(root_module_types=ROOTS))
        for group in groups:
            outputs = [dep.target for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)]
            layers = [names[node.module] for node in outputs if isinstance(node.module, tuple(ROOTS))]
            with tracing(model):
                reason = unfit(group, graph, outputs)
            if reason:
                self.skipped |= dict.fromkeys(layers, reason)
            else:
                layers.sort(key=order.index)
                found[layers[0]] = layers
        modules = dict(model.named_modules())
        self.layers = {name: found[name] for name in sorted(found, key=order.index)}
        self.sizes = {name: graph.get_out_channels(modules[name]) for name in self.layers}
        reached = {name for module, name in names.items() if module in graph.module2node}
        for name, module in model.named_modules():
            if isinstance(module, tuple(ROOTS)) and name not in reached:
                self.skipped[name] = "no gradient comes from the outputs to it"
        self._drop_inconsistent()

    def _drop_inconsistent(self) -> None:
        """Skip the units whose channels do more than their layers' inputs say, one by one if need be."""
        if not is_consistent(self.model, self.image, list(self.sizes)):
            for name in list(self.sizes):
                if not is_consistent(self.model, self.image, [name]):
                    reason = "without a channel the others are no longer where the next layers expect them"
                    self.skipped |= dict.fromkeys(self.layers.pop(name), reason)
                    del self.sizes[name]

    def restrict(self, groups: list[str]) -> None:
        """Leave the others alone."""
        self.sizes = {name: self.sizes[name] for name in groups}
        self.layers = {name: self.layers[name] for name in groups}

    def allowed_count(self, count: int, size: int) -> int:
        """How many of `size` channels can be removed where `count` are wanted: a multiple of `round_to` stays."""
        if count <= 0:  # what nobody prunes is not rounded, either
            return 0
        kept = max(1, round((size - count) / self.round_to)) * self.round_to
        return size - min(size, kept)

    def scores(self, importance: Importance) -> dict[str, Tensor]:
        """The importance of every channel that is left (channels,), in each unit; of those at zero below all others."""
        function, found = importance.of_channels(), {}
        graph, modules = trace(self.model, self.image), dict(self.model.named_modules())
        for name in self.sizes:
            found[name] = function(coupled(graph, modules[name])).cpu().nan_to_num(0.0)  # of a unit that is dead
            found[name][self.masked.get(name, [])] = -1
        return found

    def mask_least_important(self, counts: dict[str, int], scores: dict[str, Tensor]) -> None:
        """Zero channels until so many of each unit's are gone or zero, the least important first."""
        for name, count in counts.items():
            gone = self.sizes[name] - len(scores[name])
            least = scores[name].topk(max(0, count - gone), largest=False).indices
            self.masked[name] = sorted(least.tolist())
        self.zeros = self._layers()
        self.apply_masks()

    def _layers(self) -> list[tuple[nn.Module, list[int], bool]]:
        """The layers of every unit, the channels that are zero in them, and whether the layer makes or reads them."""
        graph, modules = trace(self.model, self.image), dict(self.model.named_modules())
        groups = [coupled(graph, modules[name], channels) for name, channels in self.masked.items() if channels]
        found = [(dep.target.module, idxs, dep.handler not in INPUTS) for group in groups for dep, idxs in group]
        kinds = (*ROOTS, nn.modules.batchnorm._NormBase)
        return [(module, idxs, makes) for module, idxs, makes in found if isinstance(module, kinds)]

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Keep in training what is zero at zero."""
        for module, channels, makes in self.zeros:
            if not makes:  # what an activation makes of zero must not count, either
                module.weight[:, channels] = 0
            elif module.weight is not None:
                module.weight[channels] = 0
                if module.bias is not None:
                    module.bias[channels] = 0

    def remove_channels(self) -> None:
        """Remove the channels that are zero."""
        remove(self.model, self.image, self.masked)
        to_memory_format(self.model, torch.channels_last)
        self.clear_masks()

    def clear_masks(self) -> None:
        """Let channels at zero change again."""
        self.masked, self.zeros = {}, []

    def remove_hooks(self) -> None:
        """Nothing of this is left in the network."""

    def cost(self, counts: dict[str, int], kind: str) -> float:
        """The share of "parameters" or "macs" of the dense network that is left without so many channels."""
        smaller = deepcopy(self.model)
        remove(smaller, self.image, {name: list(range(count)) for name, count in counts.items()})
        return _total(smaller, self.image, kind) / _total(self.model, self.image, kind)

    def state_dict(self) -> dict[str, Any]:
        return {"shapes": changed_shapes(self.dense, self.model), "zeroed": self.masked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        shrink_to(self.model, state["shapes"])
        self.masked = state["zeroed"]
        self.zeros = self._layers()


def _total(model: nn.Module, image: Tensor, kind: str) -> int:
    return count_macs(model, image) if kind == "macs" else sum(tensor.numel() for tensor in model.parameters())
