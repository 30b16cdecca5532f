"""Labels of channels: numbers that each element of each tensor has, stored as the elements themselves are.

Labels of channels that must go together are united into one class. Labels of a tensor come in planes. Each plane gives
every element one label, and an element can belong to a channel in each plane: an element of a weight belongs to an
output channel and to an input channel.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

NONE = 0  # the label of elements that belong to no channel
Planes = list[Tensor]  # of labels; a plane has the dimensions of its tensor, of size 1 where its labels do not vary


class Labels:
    """Hold the classes of all labels (union-find, Galler and Fischer 1964), and which classes must stay, and why.

    Every class is known by its smallest label, its root. All operations work on whole tensors of labels.
    """

    def __init__(self) -> None:
        self.roots = torch.zeros(1, dtype=torch.int64)  # of every label; those of a class are equal after `unite`
        self.reasons: dict[int, str] = {}  # by label that must stay

    def create(self, number: int) -> Tensor:
        """Create labels, each in a class of its own (number,)."""
        first = len(self.roots)
        labels = torch.arange(first, first + number)
        self.roots = torch.cat([self.roots, labels])
        return labels

    def find(self, labels: Tensor) -> Tensor:
        """Return the roots of labels, in the shape of the labels."""
        return self.roots[labels]

    def unite(self, some: Tensor, others: Tensor) -> None:
        """Unite the classes of labels that meet, element by element; NONE meets nothing."""
        some, others = torch.broadcast_tensors(self.find(some), self.find(others))
        meets = (some != others) & (some != NONE) & (others != NONE)
        if not meets.any():
            return
        pairs = torch.stack([some[meets], others[meets]]).unique(dim=1)
        while len(pairs[0]):
            low, high = pairs.amin(0), pairs.amax(0)
            self.roots.scatter_reduce_(0, high, low, "amin")
            while not torch.equal(self.roots, flat := self.roots[self.roots]):
                self.roots = flat
            pairs = self.roots[torch.stack([low, high])]
            pairs = pairs[:, pairs[0] != pairs[1]]

    def tie(self, labels: Tensor, dims: list[int]) -> Tensor:
        """Unite labels that differ only in their place along some dimensions; return the first ones along these."""
        for dim in dims:
            first = labels.narrow(dim, 0, 1)
            self.unite(labels, first)
            labels = first
        return labels

    def keep_whole(self, labels: Tensor, reason: str) -> None:
        """Record that the classes of these labels must stay whole; the first reason of a class counts."""
        for label in self.find(labels).unique().tolist():
            if label != NONE:
                self.reasons.setdefault(label, reason)

    def whole_classes(self) -> dict[int, str]:
        """Return the reasons of the classes that must stay whole, by root; of several, that recorded first."""
        classes: dict[int, str] = {}
        for label, reason in self.reasons.items():
            classes.setdefault(int(self.roots[label]), reason)
        return classes


@dataclass
class _Stored:
    """Hold the planes of one storage, either for the tensor that wrote them or, laid out, for every view of it."""

    storage: StorageWeakRef
    layout: tuple[Any, ...]
    planes: Planes
    parameter: bool
    laid_out: Planes | None = None


class LabelMemory:
    """Hold the labels of tensors that live. A view of a tensor has the labels of the elements that it shows."""

    def __init__(self) -> None:
        self.stored: dict[int, _Stored] = {}
        self.swept = 0

    def read(self, tensor: Tensor) -> Planes:
        """Return the planes of a tensor; none for a tensor without channels."""
        stored = self._find(tensor)
        if stored is None:
            return []
        if stored.layout == _layout(tensor):
            return stored.planes
        return [compact(torch.as_strided(plane, *_layout(tensor))) for plane in self._lay_out(stored, tensor)]

    def is_parameter(self, tensor: Tensor) -> bool:
        """Return whether a tensor is a parameter, or was computed from parameters alone."""
        stored = self._find(tensor)
        return stored is not None and stored.parameter

    def write(self, tensor: Tensor, planes: Planes, parameter: bool = False) -> None:
        """Store the planes of a tensor that was computed, or of elements that were overwritten."""
        storage = tensor.untyped_storage()
        stored = self._find(tensor)
        if stored is None or stored.layout == _layout(tensor):
            self._sweep()
            self.stored[storage._cdata] = _Stored(StorageWeakRef(storage), _layout(tensor), planes, parameter)
            return
        laid_out = self._lay_out(stored, tensor)
        size = storage.nbytes() // tensor.element_size()
        laid_out += [torch.zeros(size, dtype=torch.int64) for _ in planes[len(laid_out) :]]
        for number, plane in enumerate(laid_out):
            view = torch.as_strided(plane, *_layout(tensor))
            view.copy_(planes[number].expand(tensor.shape)) if number < len(planes) else view.zero_()
        stored.layout = ()

    def _find(self, tensor: Tensor) -> _Stored | None:
        stored = self.stored.get(tensor.untyped_storage()._cdata)
        return stored if stored and not stored.storage.expired() else None

    def _lay_out(self, stored: _Stored, tensor: Tensor) -> Planes:
        """Lay out the planes as the elements of the whole storage lie."""
        if stored.laid_out is None:
            size = tensor.untyped_storage().nbytes() // tensor.element_size()
            stored.laid_out = [torch.zeros(size, dtype=torch.int64) for _ in stored.planes]
            for flat, plane in zip(stored.laid_out, stored.planes, strict=True):
                torch.as_strided(flat, *stored.layout).copy_(plane.expand(stored.layout[0]))
        return stored.laid_out

    def _sweep(self) -> None:
        """Forget the storages that are gone, now and then."""
        if len(self.stored) > 2 * self.swept + 100:
            self.stored = {key: stored for key, stored in self.stored.items() if not stored.storage.expired()}
            self.swept = len(self.stored)


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset()


def compact(plane: Tensor) -> Tensor:
    """Shorten the dimensions along which a plane does not vary to size 1."""
    for dim in range(plane.dim()):
        if plane.shape[dim] > 1:
            first = plane.narrow(dim, 0, 1)
            if plane.stride(dim) == 0 or (torch.equal(plane.narrow(dim, 1, 1), first) and bool((plane == first).all())):
                plane = first
    return plane


def varying(plane: Tensor) -> list[int]:
    """List the dimensions along which a plane varies."""
    return [dim for dim, size in enumerate(plane.shape) if size > 1]
