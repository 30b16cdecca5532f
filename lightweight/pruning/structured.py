"""Structured pruning removes whole channels: the result is a smaller network of the same kind, and a faster one."""

from copy import deepcopy
from math import gcd
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightweight.core.memory_format import to_memory_format
from lightweight.dependencies.plan import make_plan
from lightweight.dependencies.removal import places_of, remove_places, remove_sizes
from lightweight.macs import count_macs, count_macs_by_module
from lightweight.networks.pruned_shapes import changed_shapes, depthwise_multiplier, shrink_to
from lightweight.pruning.importance import Importance, Term
from lightweight.tracing.trace import Axis

NO_CHANNEL_LAYER = "it is no convolution and no linear layer"


class ChannelGroups:
    """Represent the channels of a network as pruning groups: the `PruningGroups` of structured pruning.

    The layers of a group must lose the same channels; the group has the name of its first layer. `skipped` maps every
    layer that is in no group to the reason; the layer of the outputs is one of them. A multiple of `round_to` channels
    stays in every group that is pruned. Raises InputError when the network cannot be traced with `image` (1, C, H, W).
    """

    def __init__(self, model: nn.Module, image: Tensor, round_to: int, heads: bool) -> None:
        self.model, self.image, self.round_to = model, image, round_to
        plan = make_plan(model, image, heads)
        self.dense = deepcopy(model).to("meta")  # without memory: only the shapes are needed
        self.plan, self.groups, self.skipped = plan, plan.groups, plan.skipped
        self.sizes = {name: group.size for name, group in self.groups.items()}
        self.layers = {name: group.layers for name, group in self.groups.items()}
        self.removed: dict[str, list[int]] = {}  # members by group, as numbered in the dense network
        self.masked: dict[
            str, list[int]
        ] = {}  # the same of those at zero, as numbered among those that are not removed

    def keep_only(self, groups: list[str]) -> None:
        """Drop all groups but these from what can be pruned."""
        self.sizes = {name: self.sizes[name] for name in groups}
        self.layers = {name: self.layers[name] for name in groups}

    def allowed_count(self, count: int, name: str) -> int:
        """Round the number of members to remove of a group, so that a multiple of `round_to` channels stays."""
        if count <= 0:  # a group that is not pruned is not rounded either
            return 0
        size, unit = self.sizes[name], self.round_to // gcd(self.round_to, self.groups[name].width)
        kept = max(1, round((size - count) / unit)) * unit
        return size - min(size, kept)

    def scores(self, importance: Importance) -> dict[str, Tensor]:
        """Compute the importance of every channel that is not removed (channels,) by group.

        Masked channels score below all others, and so do all channels of a group whose weights are all zero.
        """
        scores: dict[str, Tensor] = {}
        for name in self.sizes:
            left = self._left(name)
            scores[name] = importance.score_channels(len(left), self._terms(name, importance.scored_layers)).nan_to_num(
                0.0
            )
            scores[name][self.masked.get(name, [])] = -1
        return scores

    def _terms(self, group: str, scored: tuple[type[nn.Module], ...]) -> list[Term]:
        """List the weights of scored layers that compute, read or scale the channels of a group that are left.

        Depthwise convolutions are left out: they have one small kernel for each channel.
        """
        numbers = torch.full((self.groups[group].size,), -1)
        left = self._left(group)
        numbers[left] = torch.arange(len(left))
        gone, terms = self._places(self.removed), []
        for (name, dim), cut in self.groups[group].cuts.items():
            module, _, key = name.rpartition(".")
            layer = self.model.get_submodule(module)
            if isinstance(layer, scored) and key == "weight" and not depthwise_multiplier(layer):
                assert isinstance(layer.weight, Tensor)
                members = numbers[cut.members]
                indices = _renumber(cut.indices[members >= 0], gone.get((name, dim)))
                terms.append(Term(layer.weight, dim, indices, members[members >= 0]))
        return terms

    def _left(self, group: str) -> list[int]:
        """List the members of a group that are not removed, as numbered in the dense network."""
        removed = set(self.removed.get(group, ()))
        return [member for member in range(self.groups[group].size) if member not in removed]

    def _places(self, members: dict[str, list[int]]) -> dict[Axis, Tensor]:
        """List the places of members, both as numbered in the dense network."""
        return places_of(self.groups, members)

    def _dense_numbers(self, members: dict[str, list[int]]) -> dict[str, list[int]]:
        """Number members among those that are left as in the dense network."""
        return {name: [self._left(name)[number] for number in numbers] for name, numbers in members.items()}

    def _places_left(self, members: dict[str, list[int]]) -> dict[Axis, Tensor]:
        """List the places in the network as it is of members, as numbered among those that are left."""
        gone = self._places(self.removed)
        places = self._places(self._dense_numbers(members))
        return {axis: _renumber(indices, gone.get(axis)) for axis, indices in places.items()}

    def mask_least_important(self, counts: dict[str, int], scores: dict[str, Tensor]) -> None:
        """Set the least important channels to zero until `counts` channels of each group are zero or removed."""
        for name, count in counts.items():
            removed = self.sizes[name] - len(scores[name])
            least = scores[name].topk(max(0, count - removed), largest=False).indices
            self.masked[name] = self._leave_some(name, sorted(least.tolist()))
        self.apply_masks()

    def _leave_some(self, name: str, masked: list[int]) -> list[int]:
        """Unmask what a tensor that has fewer channels than its group would lose last; as numbered among the left."""
        left, removed = self._left(name), self.removed.get(name, [])
        gone = set(self.groups[name].leave_some([*(left[number] for number in masked), *removed]))
        return [number for number in masked if left[number] in gone]

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set the parameters of masked channels to zero, in the layers that compute and in those that read them.

        The latter is necessary because an activation such as the sigmoid does not map zero to zero.
        """
        parameters = dict(self.model.named_parameters())
        for (name, dim), indices in self._places_left(self.masked).items():
            if name in parameters:
                parameters[name].index_fill_(dim, indices.to(parameters[name].device), 0)

    def remove_channels(self) -> None:
        """Remove the masked channels from the network in place."""
        self._remove(self.model, self.masked)
        for name, members in self._dense_numbers(self.masked).items():
            self.removed[name] = sorted({*self.removed.get(name, ()), *members})
        to_memory_format(self.model, torch.channels_last)
        self.clear_masks()

    def _remove(self, model: nn.Module, members: dict[str, list[int]]) -> None:
        """Remove members, as numbered among those that are left, from the network or a copy of it."""
        remove_places(model, self._places_left(members))
        dense = self._dense_numbers(members)
        gone = [self.groups[name].classes[[*dense.get(name, ()), *self.removed.get(name, ())]] for name in self.groups]
        remove_sizes(model, self.plan.sizes, self.plan.labels, torch.cat(gone))

    def clear_masks(self) -> None:
        """Mask no channel any longer, so that all of them can change."""
        self.masked = {}

    def remove_hooks(self) -> None:
        """Do nothing: structured pruning adds no hooks to the network."""

    def uncovered(self) -> dict[str, tuple[float, str]]:
        """Return by layer the share of the MACs of which no group that can be pruned removes anything, and why."""
        cut = [name.split(".")[:-1] for group in self.sizes for name, _ in self.groups[group].cuts]
        covered = {".".join(parts[:end]) for parts in cut for end in range(len(parts) + 1)}
        total, macs = count_macs(self.model, self.image), count_macs_by_module(self.model, self.image)
        shares: dict[str, tuple[float, str]] = {}
        for name in macs.keys() - covered:
            inside = sum(macs[other] for other in macs if other.rpartition(".")[0] == name)
            reasons = [self.skipped[layer] for layer in self.skipped if f"{layer}.".startswith(f"{name}.")]
            if macs[name] > inside:
                shares[name] = (macs[name] - inside) / total, reasons[0] if reasons else NO_CHANNEL_LAYER
        return dict(sorted(shares.items()))

    def cost(self, counts: dict[str, int], kind: Literal["parameters", "macs"]) -> float:
        """Compute the share of the parameters or MACs that the network has without `counts` channels of each group."""
        smaller = deepcopy(self.model)
        self._remove(smaller, {name: list(range(count)) for name, count in counts.items()})
        return self._count(smaller, kind) / self._count(self.model, kind)

    def _count(self, model: nn.Module, kind: Literal["parameters", "macs"]) -> int:
        if kind == "macs":
            return count_macs(model, self.image)
        return sum(tensor.numel() for tensor in model.parameters())

    def state_dict(self) -> dict[str, Any]:
        return {"shapes": changed_shapes(self.dense, self.model), "masked": self.masked, "removed": self.removed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        shrink_to(self.model, state["shapes"])
        self.masked, self.removed = state["masked"], state["removed"]


def _renumber(places: Tensor, removed: Tensor | None) -> Tensor:
    """Number places along an axis anew after others have been removed from it."""
    return places if removed is None else places - torch.searchsorted(removed, places)
