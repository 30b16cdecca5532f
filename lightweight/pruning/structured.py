"""Structured pruning removes whole channels: the result is a smaller network of the same kind, and a faster one."""

from copy import deepcopy
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightweight.core.memory_format import to_memory_format
from lightweight.macs import count_macs
from lightweight.networks.pruned_shapes import changed_shapes, shrink_to
from lightweight.pruning.dependency_graph import (
    CHANNEL_LAYERS,
    INPUT_PRUNERS,
    build_dependency_graph,
    coupled_channels,
    list_groups,
    naming_layer_in_errors,
    reason_to_skip,
    removal_is_consistent,
    remove_channels,
)
from lightweight.pruning.importance import Importance


class MaskedLayer(NamedTuple):
    """Represent a layer with masked channels, which the layer either computes or reads (`reads`)."""

    module: Any
    channels: list[int]
    reads: bool


class ChannelGroups:
    """Represent the channels of a network as pruning groups: the `PruningGroups` of structured pruning.

    The layers of a group must lose the same channels; the group has the name of its first layer. `skipped` maps every
    layer that is in no group to the reason; the layer of the outputs is one of them. A multiple of `round_to` channels
    stays in every group that is pruned. Raises InputError when the network cannot be traced with `image` (1, C, H, W).
    """

    def __init__(self, model: nn.Module, image: Tensor, round_to: int) -> None:
        self.model, self.image, self.round_to = model, image, round_to
        self.dense = deepcopy(model).to("meta")  # without memory: only the shapes are needed
        self.masked: dict[str, list[int]] = {}  # the channels at zero by group
        self.masked_layers: list[MaskedLayer] = []  # the same by layer
        self.layers: dict[str, list[str]] = {}
        self.sizes: dict[str, int] = {}
        self.skipped: dict[str, str] = {}
        self._find_groups()
        self._skip_inconsistent()

    def _find_groups(self) -> None:
        """Fill `layers`, `sizes` and `skipped` from the dependency graph, in the order of the network's layers."""
        graph = build_dependency_graph(self.model, self.image)
        names = {module: name for name, module in self.model.named_modules()}
        modules, order = dict(self.model.named_modules()), list(names.values())
        with naming_layer_in_errors(self.model):
            groups = list(list_groups(graph))
        layers: dict[str, list[str]] = {}
        for outputs, group in groups:
            coupled = [names[node.module] for node in outputs if isinstance(node.module, CHANNEL_LAYERS)]
            with naming_layer_in_errors(self.model):
                reason = reason_to_skip(group, graph, outputs)
            if reason:
                self.skipped |= dict.fromkeys(coupled, reason)
            else:
                coupled.sort(key=order.index)
                layers[coupled[0]] = coupled
        self.layers = {name: layers[name] for name in sorted(layers, key=order.index)}
        self.sizes = {name: graph.get_out_channels(modules[name]) for name in self.layers}
        reached = {name for module, name in names.items() if module in graph.module2node}
        for name, module in modules.items():
            if isinstance(module, CHANNEL_LAYERS) and name not in reached:
                self.skipped[name] = "no gradient comes from the outputs to it"

    def _skip_inconsistent(self) -> None:
        """Skip the groups from which channels cannot be removed consistently, found by halving the list of all."""
        with tqdm(total=len(self.sizes), desc="groups checked", leave=False, disable=None) as progress:
            for name in self._find_inconsistent(list(self.sizes), progress):
                reason = "without a channel the others are no longer where the next layers expect them"
                self.skipped |= dict.fromkeys(self.layers.pop(name), reason)
                del self.sizes[name]

    def _find_inconsistent(self, groups: list[str], progress: tqdm) -> list[str]:
        """List the groups that fail alone, among those that do not pass together."""
        passed = removal_is_consistent(self.model, self.image, groups)
        if passed or len(groups) < 2:
            progress.update(len(groups))
            return [] if passed else groups
        halves = groups[: len(groups) // 2], groups[len(groups) // 2 :]
        return [name for half in halves for name in self._find_inconsistent(half, progress)]

    def keep_only(self, groups: list[str]) -> None:
        """Drop all groups but these from what can be pruned."""
        self.sizes = {name: self.sizes[name] for name in groups}
        self.layers = {name: self.layers[name] for name in groups}

    def allowed_count(self, count: int, size: int) -> int:
        """Round the number of channels to remove of `size` channels, so that a multiple of `round_to` stays."""
        if count <= 0:  # a group that is not pruned is not rounded either
            return 0
        kept = max(1, round((size - count) / self.round_to)) * self.round_to
        return size - min(size, kept)

    def scores(self, importance: Importance) -> dict[str, Tensor]:
        """Compute the importance of every channel that is not removed (channels,) by group.

        Masked channels score below all others, and so do all channels of a group whose weights are all zero.
        """
        graph, modules = build_dependency_graph(self.model, self.image), dict(self.model.named_modules())
        scores: dict[str, Tensor] = {}
        for name in self.sizes:
            scores[name] = importance.score_channels(coupled_channels(graph, modules[name])).cpu().nan_to_num(0.0)
            scores[name][self.masked.get(name, [])] = -1
        return scores

    def mask_least_important(self, counts: dict[str, int], scores: dict[str, Tensor]) -> None:
        """Set the least important channels to zero until `counts` channels of each group are zero or removed."""
        for name, count in counts.items():
            removed = self.sizes[name] - len(scores[name])
            least = scores[name].topk(max(0, count - removed), largest=False).indices
            self.masked[name] = sorted(least.tolist())
        self.masked_layers = self._find_masked_layers()
        self.apply_masks()

    def _find_masked_layers(self) -> list[MaskedLayer]:
        """List the layers with parameters that compute or read masked channels."""
        graph, modules = build_dependency_graph(self.model, self.image), dict(self.model.named_modules())
        masked_layers = []
        for name, channels in self.masked.items():
            for dep, indices in coupled_channels(graph, modules[name], channels) if channels else ():
                if isinstance(dep.target.module, (*CHANNEL_LAYERS, nn.modules.batchnorm._NormBase)):
                    masked_layers.append(MaskedLayer(dep.target.module, indices, dep.handler in INPUT_PRUNERS))
        return masked_layers

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set the parameters of masked channels to zero, in the layers that compute and in those that read them.

        The latter is necessary because an activation such as the sigmoid does not map zero to zero.
        """
        for module, channels, reads in self.masked_layers:
            if reads:
                module.weight[:, channels] = 0
            elif module.weight is not None:
                module.weight[channels] = 0
                if module.bias is not None:
                    module.bias[channels] = 0

    def remove_channels(self) -> None:
        """Remove the masked channels from the network in place."""
        remove_channels(self.model, self.image, self.masked)
        to_memory_format(self.model, torch.channels_last)
        self.clear_masks()

    def clear_masks(self) -> None:
        """Mask no channel any longer, so that all of them can change."""
        self.masked, self.masked_layers = {}, []

    def remove_hooks(self) -> None:
        """Do nothing: structured pruning adds no hooks to the network."""

    def cost(self, counts: dict[str, int], kind: Literal["parameters", "macs"]) -> float:
        """Compute the share of the parameters or MACs that the network has without `counts` channels of each group."""
        smaller = deepcopy(self.model)
        remove_channels(smaller, self.image, {name: list(range(count)) for name, count in counts.items()})
        return self._count(smaller, kind) / self._count(self.model, kind)

    def _count(self, model: nn.Module, kind: Literal["parameters", "macs"]) -> int:
        if kind == "macs":
            return count_macs(model, self.image)
        return sum(tensor.numel() for tensor in model.parameters())

    def state_dict(self) -> dict[str, Any]:
        return {"shapes": changed_shapes(self.dense, self.model), "masked": self.masked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        shrink_to(self.model, state["shapes"])
        self.masked = state["masked"]
        self.masked_layers = self._find_masked_layers()
