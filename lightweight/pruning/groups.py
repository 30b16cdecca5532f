"""Pruning groups: the parts of a network from which pruning can choose, and the interface that both methods implement.

A group is a layer with its single weights (`unstructured.py`), or several coupled layers with the channels that they
share (`structured.py`). A group has the name of its first layer.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from lightweight.core.errors import bad_param
from lightweight.pruning.importance import Importance
from lightweight.pruning.structured import ChannelGroups
from lightweight.pruning.unstructured import WeightGroups
from lightweight.tracing.trace import GIVES_OUTPUTS

Method = Literal["unstructured", "structured"]
LayerType = Literal["conv", "linear", "both"]
Cost = Literal["parameters", "macs"]
PrunableLayer = nn.Conv2d | nn.Linear

MAX_NAMES = 5  # of layers that `describe_skipped` lists for one reason
LAYER_TYPES: dict[LayerType, tuple[type[PrunableLayer], ...]] = {
    "conv": (nn.Conv2d,),
    "linear": (nn.Linear,),
    "both": (nn.Conv2d, nn.Linear),
}


class PruningGroups(Protocol):
    """Represent the pruning groups of one network; what can be pruned of a group is its members: weights or channels.

    `sizes` counts the members of each group in the dense network. `layers` names the layers of each group. `skipped`
    maps every layer that is in no group to the reason.
    """

    sizes: dict[str, int]
    layers: dict[str, list[str]]
    skipped: dict[str, str]

    def scores(self, importance: Importance) -> dict[str, Tensor]:
        """Compute the importance of every member that is not removed (members,) by group; masked ones score lowest."""
        ...

    def allowed_count(self, count: int, name: str) -> int:
        """Round `count` to the nearest number of members that can be pruned of a group."""
        ...

    def mask_least_important(self, counts: dict[str, int], scores: dict[str, Tensor]) -> None:
        """Set the least important members to zero until `counts` members of each group are zero or removed."""
        ...

    def apply_masks(self) -> None:
        """Set the masked members to zero again, after an optimizer step or an average has changed them."""
        ...

    def remove_channels(self) -> None:
        """Remove masked channels from the network in place; unstructured pruning removes nothing."""
        ...

    def clear_masks(self) -> None:
        """Mask no member any longer, so that all of them can change."""
        ...

    def remove_hooks(self) -> None:
        """Remove from the network everything that pruning has attached to it."""
        ...

    def uncovered(self) -> dict[str, tuple[float, str]]:
        """Return by layer the share of the MACs of which no group removes anything, and why."""
        ...

    def cost(self, counts: dict[str, int], kind: Cost) -> float:
        """Compute the share of parameters or MACs that the network has with `counts` members of each group pruned."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the masks, and the shapes that remain after channels were removed."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the masks and shapes in a dense network."""
        ...


class GroupParams(Protocol):
    """Describe what sections `prune` and `sensitivity` share: the method, the layers, and how attention is pruned."""

    @property
    def method(self) -> Method: ...
    @property
    def layers(self) -> LayerType: ...
    @property
    def exclude(self) -> list[str]: ...
    @property
    def heads(self) -> bool: ...


def find_groups(model: nn.Module, image: Tensor, params: GroupParams, section: str, round_to: int = 1) -> PruningGroups:
    """Find the pruning groups of a network in the chosen layers, for images (1, C, H, W).

    Structured groups keep a multiple of `round_to` channels. Raises InputError, which names the section of params.yaml,
    when nothing can be pruned, or when a pattern of `exclude` names no layer.
    """
    chosen, excluded = prunable_layers(model, params.layers), excluded_layers(model, params.exclude, section)
    if not chosen:
        raise bad_param(f"{section}.layers", params.layers, "the network has no such layer")
    allowed = {name: layer for name, layer in chosen.items() if name not in excluded}
    groups: PruningGroups
    if params.method == "unstructured":
        groups = WeightGroups(model, allowed)
    else:
        groups = channels = ChannelGroups(model, image, round_to, params.heads)
        named = [(group, set(layers)) for group, layers in channels.layers.items()]
        channels.keep_only([group for group, layers in named if layers & set(chosen) and not layers & excluded])
    pruned = {name for names in groups.layers.values() for name in names}
    known = groups.skipped | dict.fromkeys(excluded, f"{section}.exclude names it")
    names = [name for name in prunable_layers(model, "both") if name not in pruned]
    groups.skipped = {name: known.get(name, f"{section}.layers or {section}.exclude spares it") for name in names}
    if not groups.sizes:
        reasons = {name: reason for name, reason in groups.skipped.items() if name in allowed}
        listed = describe_skipped(reasons) if reasons else f"{section}.exclude names them all"
        raise bad_param(f"{section}.layers", params.layers, f"nothing can be pruned: {listed}")
    return groups


def describe_skipped(reasons: dict[str, str]) -> str:
    """List the layers that lose nothing by reason, with counts, the most frequent first and that of the outputs last.

    As in `3 layers (a, b and c): attention must keep its heads; fc: it gives the network's outputs`.
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    order = sorted(names, key=lambda reason: (reason == GIVES_OUTPUTS, -len(names[reason])))
    return "; ".join(f"{_count_and_name(names[reason])}: {reason}" for reason in order)


def describe_uncovered(shares: dict[str, tuple[float, str]]) -> str:
    """Say how large the share of the MACs is of which nothing is removed, in which layers and why, the most first."""
    reasons: dict[str, dict[str, float]] = {}
    for name, (share, reason) in shares.items():
        reasons.setdefault(reason, {})[name] = share
    order = sorted(reasons, key=lambda reason: -sum(reasons[reason].values()))
    parts = [f"{sum(reasons[why].values()):.0%} in {_count_and_name(list(reasons[why]))}: {why}" for why in order]
    total = sum(share for share, _ in shares.values())
    return f"{total:.0%} of the MACs are in layers of which nothing is removed: {'; '.join(parts)}"


def _count_and_name(names: list[str]) -> str:
    """Name a single layer, or count several and name the first of them."""
    if len(names) == 1:
        return names[0]
    listed, more = ", ".join(names[:MAX_NAMES]), len(names) - MAX_NAMES
    return f"{len(names)} layers ({listed}{f' and {more} more' if more > 0 else ''})"


def prunable_layers(model: nn.Module, types: LayerType) -> dict[str, PrunableLayer]:
    """List the layers of the types by name, in the network's order.

    Layers that compute their weights anew in each forward pass, such as those with weight normalisation, are left out.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LAYER_TYPES[types])}
    return {name: layer for name, layer in layers.items() if isinstance(layer.weight, nn.Parameter)}


def excluded_layers(model: nn.Module, exclude: list[str], section: str) -> set[str]:
    """List the layers that the patterns of `exclude` name. Raises InputError for a pattern that names none."""
    names = prunable_layers(model, "both")
    for pattern in exclude:
        if not matching_names(pattern, names):
            raise bad_param(f"{section}.exclude", pattern, f"names no layer; layers are {', '.join(names)}")
    return {name for pattern in exclude for name in matching_names(pattern, names)}


def matching_names(pattern: str, names: Iterable[str]) -> list[str]:
    """List the names that match a shell-style pattern."""
    return [name for name in names if fnmatchcase(name, pattern)]


def sparsity_by_layer(before: nn.Module, after: nn.Module) -> list[dict[str, Any]]:
    """Count the weights of every convolution and linear layer of `before` that are removed or zero in `after`.

    Returns a row per layer with the number of its weights, the number of those pruned, and their share.
    """
    rows = []
    pruned_layers = prunable_layers(after, "both")
    for name, layer in prunable_layers(before, "both").items():
        number = layer.weight.numel()
        pruned = number - int(pruned_layers[name].weight.count_nonzero())
        rows.append({"layer": name, "weights": number, "pruned": pruned, "sparsity": pruned / number})
    return rows
