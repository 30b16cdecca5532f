"""Memory of labels: which channels each element of each tensor belongs to, stored as the elements themselves are.

Labels of a tensor come in planes. Each plane gives every element one label, and an element can belong to a channel in
each plane: an element of a weight belongs to an output channel and to an input channel.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

Planes = list[Tensor]  # of labels; a plane has the dimensions of its tensor, of size 1 where its labels do not vary


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
