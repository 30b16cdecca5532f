"""What can be pruned of a network, in units: the weights of a layer, or channels that several layers share."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from lightweight.core.errors import bad_param
from lightweight.pruning.importance import Importance
from lightweight.pruning.structured import ChannelGroups
from lightweight.pruning.unstructured import WeightGroups

Method = Literal["unstructured", "structured"]
Layers = Literal["conv", "linear", "both"]
Amounts = float | dict[str, float]  # of everything, or by unit

KINDS = {"conv": (nn.Conv2d,), "linear": (nn.Linear,), "both": (nn.Conv2d, nn.Linear)}


class PruningGroups(Protocol):
    """`sizes` counts the weights or channels of each unit in the dense network, `members` names its layers.

    `zero` takes counts of all that is gone or zero, `hold` keeps zeros while others are trained, `finish` removes
    channels at zero, `reset` gives zeros up, `release` leaves nothing of this behind.
    """

    sizes: dict[str, int]
    layers: dict[str, list[str]]

    def scores(self, importance: Importance) -> dict[str, Tensor]: ...
    def allowed_count(self, count: int, size: int) -> int: ...
    def mask_least_important(self, counts: dict[str, int], scores: dict[str, Tensor]) -> None: ...
    def apply_masks(self) -> None: ...
    def remove_channels(self) -> None: ...
    def clear_masks(self) -> None: ...
    def remove_hooks(self) -> None: ...
    def cost(self, counts: dict[str, int], kind: str) -> float: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def prunable_layers(model: nn.Module, kind: Layers) -> dict[str, nn.Module]:
    """Every layer of the kind by name, in the network's order, but those that compute their weights anew each time."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, KINDS[kind])}
    return {name: module for name, module in found.items() if isinstance(module.weight, nn.Parameter)}


class GroupParams(Protocol):
    """The parameters that sections `prune` and `sensitivity` share: which layers may be pruned, and by which method."""

    method: Method
    layers: Layers
    exclude: list[str]


def find_groups(model: nn.Module, image: Tensor, params: GroupParams, section: str, round_to: int = 1) -> PruningGroups:
    """Find the pruning groups of a network in the chosen layers, for images (1, C, H, W).

    Structured groups keep a multiple of `round_to` channels. Raises InputError, which names the section of params.yaml,
    when nothing can be pruned, or when a pattern of `exclude` names no layer.
    """
    kind, exclude = params.layers, params.exclude
    chosen, out = prunable_layers(model, kind), excluded_layers(model, exclude, section)
    if not chosen:
        raise bad_param(f"{section}.layers", kind, "the network has no such layer")
    reasons: dict[str, str] = {}
    if params.method == "unstructured":
        groups: PruningGroups = WeightGroups(
            model, {name: module for name, module in chosen.items() if name not in out}
        )
    else:
        groups = ChannelGroups(model, image, round_to)
        names = groups.layers.items()
        groups.restrict([group for group, own in names if set(own) & set(chosen) and not set(own) & out])
        reasons = {name: reason for name, reason in groups.skipped.items() if name in chosen and name not in out}
    if not groups.sizes:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or f"{section}.exclude names them all"
        raise bad_param(f"{section}.layers", kind, f"nothing can be pruned: {why}")
    return groups


def excluded_layers(model: nn.Module, exclude: list[str], section: str) -> set[str]:
    """The layers that patterns exclude. Raises InputError for a pattern that names none."""
    known = prunable_layers(model, "both")
    for pattern in exclude:
        if not _matching(pattern, known):
            raise bad_param(f"{section}.exclude", pattern, f"names no layer; layers are {', '.join(known)}")
    return {name for pattern in exclude for name in _matching(pattern, known)}


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def amounts_by_group(amounts: dict[str, float], groups: PruningGroups) -> dict[str, float]:
    """The shares that names and patterns of layers ask for, by unit; 0 for units that none of them means.

    A layer's own name goes before patterns. Raises InputError for a pattern without a layer, and for different shares
    of one layer or of layers that share their channels.
    """
    known = {name for names in groups.layers.values() for name in names}
    found: dict[str, tuple[str, float]] = {}
    for pattern, amount in sorted(amounts.items(), key=lambda item: item[0] not in known):
        named = [group for group in groups.sizes if _matching(pattern, groups.layers[group])]
        if not named:
            can = ", ".join(name for group in groups.sizes for name in groups.layers[group])
            raise bad_param(f"prune.amount.{pattern}", amount, f"names no layer that can be pruned; these are {can}")
        for group in named:
            before, other = found.setdefault(group, (pattern, amount))
            if other != amount and (pattern in known or before not in known):
                shared = " and ".join(groups.layers[group])
                rule = f"{before}'s {other} is for the same channels or weights, those of {shared}"
                raise bad_param(f"prune.amount.{pattern}", amount, rule)
    return {group: found.get(group, ("", 0.0))[1] for group in groups.sizes}


def counts_to_prune(groups: PruningGroups, amounts: Amounts, scope: str, scores: dict[str, Tensor]) -> dict[str, int]:
    """How much of each unit goes: its share, or with the scope "global" the least important of all units together."""
    sizes = groups.sizes
    if isinstance(amounts, dict):
        wanted = {name: round(amounts[name] * size) for name, size in sizes.items()}
    elif scope == "layer":
        wanted = {name: round(amounts * size) for name, size in sizes.items()}
    else:
        wanted = {name: size - len(scores[name]) for name, size in sizes.items()}  # what is gone already
        number = max(0, round(amounts * sum(sizes.values())) - sum(wanted.values()))
        least = torch.cat([scores[name] for name in sizes]).topk(number, largest=False).indices
        ends = torch.tensor([len(scores[name]) for name in sizes]).cumsum(0)
        found = torch.bucketize(least.cpu(), ends, right=True).bincount(minlength=len(sizes))
        wanted = {name: wanted[name] + int(more) for name, more in zip(sizes, found, strict=True)}
    return {name: groups.allowed_count(wanted[name], size) for name, size in sizes.items()}


def sparsity(before: nn.Module, after: nn.Module) -> list[dict[str, Any]]:
    """One row per conv and linear layer: its weights before, how many are removed or zero after, and their share."""
    rows = []
    narrower = prunable_layers(after, "both")
    for name, module in prunable_layers(before, "both").items():
        number = module.weight.numel()
        pruned = number - int(narrower[name].weight.count_nonzero())
        rows.append({"layer": name, "weights": number, "pruned": pruned, "sparsity": pruned / number})
    return rows
