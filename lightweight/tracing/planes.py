"""Planes of labels meet: in sums and products of tensors, along dimensions that are reduced, and where pieces join."""

from collections.abc import Set
from typing import Any

import torch
from torch import Tensor

from lightweight.tracing.labels import NONE, Labels, Planes, compact, varying
from lightweight.tracing.memory import LabelMemory


def align(plane: Tensor, dims: int) -> Tensor:
    """Put dimensions of size 1 before those of a plane, as broadcasting does."""
    return plane.reshape((1,) * (dims - plane.dim()) + tuple(plane.shape))


def related(some: Tensor, other: Tensor) -> bool:
    """Return whether two planes speak of the same channels: they vary along a dimension in common, or not at all."""
    first, second = set(varying(some)), set(varying(other))
    return bool(first & second) or not first | second


def meet(labels: Labels, some: Planes, others: Planes, only_related: bool = False) -> Planes:
    """Unite labels of the same element in related planes, and return the planes of the element-wise result.

    With `only_related`, those of `others` that are related to no plane are left out.
    """
    result = list(some)
    for other in others:
        places = [place for place, plane in enumerate(result) if related(plane, other)]
        if not places and not only_related:
            result.append(other)
        for place in places:
            labels.unite(result[place], other)
            result[place] = torch.where(result[place] != NONE, result[place], other)
    return distinct(labels, result)


def distinct(labels: Labels, planes: Planes) -> Planes:
    """Return planes of other channels each, without those that hold no label."""
    result, roots = Planes(), Planes()
    for plane in map(compact, planes):
        root = labels.find(plane)
        if plane.any() and not any(torch.equal(root, known) for known in roots):
            result.append(plane)
            roots.append(root)
    return result


def reduce(labels: Labels, planes: Planes, dims: list[int]) -> Planes:
    """Return the planes of what is reduced along `dims`, of which each keeps size 1.

    Channels that are reduced together leave no label. Those that stay are tied along the dimensions.
    """
    result = []
    for plane in planes:
        if set(varying(plane)) - set(dims) or not varying(plane):
            result.append(labels.tie(plane, [dim for dim in dims if plane.shape[dim] > 1]))
    return result


def join(labels: Labels, pieces: list[Planes], sizes: list[int], dim: int) -> Planes:
    """Return the planes of tensors of the given sizes along `dim` that are concatenated along it.

    Planes that do not vary along `dim` in any piece are tied, because the other dimensions must stay of equal size.
    """
    base = max(pieces, key=len)
    columns: list[list[Tensor | None]] = [[None] * len(pieces) for _ in base]
    for number, planes in enumerate(pieces):
        free = list(range(len(base)))
        for plane in planes:
            place = next((place for place in free if related(base[place], plane)), free[0])
            free.remove(place)
            columns[place][number] = plane
    result = []
    for column in columns:
        found = [plane for plane in column if plane is not None]
        if all(plane.shape[dim] == 1 for plane in found) and any(varying(plane) for plane in found):
            for plane in found[1:]:
                labels.unite(found[0], plane)
            result.append(max(found, key=lambda plane: plane.numel()))
            continue
        shape = [max(plane.shape[other] for plane in found) for other in range(found[0].dim())]
        parts = []
        for piece, size in zip(column, sizes, strict=True):
            shape[dim] = size
            parts.append(torch.zeros(shape, dtype=torch.int64) if piece is None else piece.expand(shape))
        result.append(torch.cat(parts, dim))
    return distinct(labels, result)


class Context:
    """Hold the labels and what a rule needs to know of the operator: `site` names it and its layer.

    `rows` holds the places at which a split ties the channels of each part, so that whole parts go, such as heads;
    other splits tie those at the same place in every part. `splits` collects the labels by place, and `multiplied`
    those over which computed channels are multiplied with each other and summed, as attention does, and whether what is
    multiplied relates channels to channels instead of positions.
    """

    def __init__(self, labels: Labels, memory: LabelMemory) -> None:
        self.labels, self.memory = labels, memory
        self.site, self.place = "", ("", "", 0)
        self.rows: Set[tuple[str, str, int]] = frozenset()
        self.splits: dict[tuple[str, str, int], Tensor] = {}
        self.multiplied: list[tuple[Tensor, Tensor, bool]] = []

    def keep_whole(self, planes: Planes, reason: str) -> None:
        """Keep the channels of planes whole, for a reason that is completed by the site."""
        for plane in planes:
            self.labels.keep_whole(plane, f"{reason} at {self.site}")

    def tie_split(self, plane: Tensor) -> Tensor:
        """Tie channels that are laid out along several dimensions, so that the same go from every part."""
        dims = varying(plane)
        self.splits[self.place] = plane
        if self.place in self.rows:
            self.labels.tie(plane, dims[:-2])
            return self.labels.tie(plane, dims[-1:])
        self.labels.tie(plane, dims[:-1])
        return plane


def tensors_in(values: Any) -> list[Tensor]:
    """List the tensors among arguments, also those in lists."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    return [tensor for value in values for tensor in tensors_in(value)] if isinstance(values, list | tuple) else []


def results_in(out: Any) -> list[Tensor]:
    """List the results of an operator that hold channels: of a tuple the first, before indices or statistics."""
    results = tensors_in(out)[: 1 if isinstance(out, tuple) else None]
    return [tensor for tensor in results if tensor.is_floating_point()]
