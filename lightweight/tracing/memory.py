"""The memory of labels: every tensor that lives has those of the elements that it shows.

Views share the elements of the tensor from which they were made. What is written to one of them is seen in the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from lightweight.tracing.labels import Planes, compact


@dataclass
class _Stored:
    """Hold the planes of one storage, either for the tensor that wrote them or, laid out, for every view of it."""

    storage: StorageWeakRef
    layout: tuple[Any, ...]
    planes: Planes
    parameter: bool
    laid_out: Planes | None = None
    views: dict[tuple[Any, ...], Planes] = field(default_factory=dict)  # by layout, until something is written


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
        layout = _layout(tensor)
        if stored.layout == layout:
            return stored.planes
        if layout not in stored.views:
            planes = self._lay_out(stored, tensor)
            stored.views[layout] = [compact(torch.as_strided(plane, *layout)) for plane in planes]
        return stored.views[layout]

    def remember(self, view: Tensor, planes: Planes) -> None:
        """Take planes for those of a view, which only say in another way what its elements are."""
        stored = self._find(view)
        if stored is not None and stored.layout != _layout(view):
            stored.views[_layout(view)] = planes

    def look_through(self, func: Any, source: Tensor, rest: Iterable[Any], kwargs: Any, views: list[Tensor]) -> None:
        """Compute the planes of views as they were made of their source, which is faster than to lay them out."""
        planes = self.read(source)
        made = [func(plane.expand(source.shape), *rest, **kwargs) for plane in planes]
        for number, view in enumerate(views):
            own = [part[number] if isinstance(part, list | tuple) else part for part in made]
            self.remember(view, [compact(plane) for plane in own])

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
        stored.views.clear()

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
