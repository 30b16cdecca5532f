"""Amounts: the shares of the pruning groups that are pruned, and the numbers of weights or channels that they mean."""

from typing import Literal

import torch
from torch import Tensor

from lightweight.core.errors import bad_param
from lightweight.pruning.groups import PruningGroups, matching_names

Amounts = float | dict[str, float]  # a share of everything, or a share by group
Scope = Literal["layer", "global"]


def amounts_by_group(amounts: dict[str, float], groups: PruningGroups) -> dict[str, float]:
    """Translate amounts by names and patterns of layers into amounts by group; 0 for a group that none of them names.

    A layer's own name goes before patterns. Raises InputError for a pattern that names no layer, and for different
    amounts of one layer or of layers that share their channels.
    """
    layers = {name for names in groups.layers.values() for name in names}
    chosen: dict[str, tuple[str, float]] = {}  # by group, the first pattern that names it and its amount
    for pattern, amount in sorted(amounts.items(), key=lambda item: item[0] not in layers):
        named = [group for group in groups.sizes if matching_names(pattern, groups.layers[group])]
        if not named:
            known = ", ".join(name for group in groups.sizes for name in groups.layers[group])
            raise bad_param(f"prune.amount.{pattern}", amount, f"names no layer that can be pruned; these are {known}")
        for group in named:
            first, first_amount = chosen.setdefault(group, (pattern, amount))
            if first_amount != amount and (pattern in layers or first not in layers):
                shared = " and ".join(groups.layers[group])
                rule = f"{first}'s {first_amount} is for the same channels or weights, those of {shared}"
                raise bad_param(f"prune.amount.{pattern}", amount, rule)
    return {group: chosen.get(group, ("", 0.0))[1] for group in groups.sizes}


def counts_to_prune(groups: PruningGroups, amounts: Amounts, scope: Scope, scores: dict[str, Tensor]) -> dict[str, int]:
    """Count the weights or channels to prune by group, those that are pruned already included.

    Amounts by group, and one amount with the scope "layer", are shares of each group. With the scope "global" the least
    important of all groups together are counted, by their `scores`.
    """
    sizes = groups.sizes
    if isinstance(amounts, dict):
        wanted = {name: round(amounts[name] * size) for name, size in sizes.items()}
    elif scope == "layer":
        wanted = {name: round(amounts * size) for name, size in sizes.items()}
    else:
        wanted = {name: size - len(scores[name]) for name, size in sizes.items()}  # the channels already removed
        number = max(0, round(amounts * sum(sizes.values())) - sum(wanted.values()))
        least = torch.cat([scores[name] for name in sizes]).topk(number, largest=False).indices
        ends = torch.tensor([len(scores[name]) for name in sizes]).cumsum(0)
        numbers = torch.bucketize(least.cpu(), ends, right=True).bincount(minlength=len(sizes))
        wanted = {name: wanted[name] + int(more) for name, more in zip(sizes, numbers, strict=True)}
    return {name: groups.allowed_count(count, name) for name, count in wanted.items()}
