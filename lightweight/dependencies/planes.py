"""Planes of labels meet: in sums and products of tensors, along dimensions that are reduced, and where pieces join."""

import torch
from torch import Tensor

from lightweight.dependencies.labels import NONE, Labels
from lightweight.dependencies.memory import Planes, compact, varying


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
        for plane, size in zip(column, sizes, strict=True):
            shape[dim] = size
            parts.append(torch.zeros(shape, dtype=torch.int64) if plane is None else plane.expand(shape))
        result.append(torch.cat(parts, dim))
    return distinct(labels, result)
