"""Shapes: every operator of a network without channels must give results of the size that the labels say.

Constants in the code of a network, such as the numbers of a reshape, do not follow what is removed. Only running the
smaller network shows them. Convolutions and matrix products need not be computed for that.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightweight.dependencies.groups import Group, Size
from lightweight.dependencies.smaller import (
    Failure,
    Members,
    choose_members,
    choose_parts,
    first_difference,
    made_smaller,
    removed_classes,
    run_smaller,
)
from lightweight.tracing.imitation import imitate
from lightweight.tracing.labels import varying
from lightweight.tracing.planes import results_in
from lightweight.tracing.rules import COPIES, IGNORED, name_operator
from lightweight.tracing.trace import Step, Trace

Shape = tuple[int | None, ...]  # None where any size will do
Sizes = tuple[str, list[Shape | None]]  # an operator, and the shapes of what it gives; None for what cannot be


class ShapeRecorder(TorchDispatchMode):
    """Note the shapes of every operator's results; convolutions and matrix products are not computed."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[Sizes] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = imitate(func, args, kwargs or {})
        if func not in IGNORED | COPIES:
            self.shapes.append((name_operator(func), [tuple(tensor.shape) for tensor in results_in(out)]))
        return out


class ShapeCheck:
    """Remove some members of groups from copies of a network, and compare the shapes of all results."""

    def __init__(self, model: nn.Module, image: Tensor, trace: Trace, sizes: list[Size]) -> None:
        self.model, self.image, self.trace, self.sizes = model, image, trace, sizes

    def find_failure(self, groups: dict[str, Group]) -> Failure | None:
        """Return where the network without some members of these groups fails; None if it does not."""
        for members in (choose_members(groups), *choose_parts(groups)):
            if members and (failure := self._try(groups, members)):
                return failure
        return None

    def _try(self, groups: dict[str, Group], members: Members) -> Failure | None:
        recorder, steps = ShapeRecorder(), self.trace.steps
        with made_smaller(self.model, groups, members, self.sizes, self.trace.labels, values=False):
            logits, error = run_smaller(self.model, self.image, recorder)
        stays = torch.ones(len(self.trace.labels.roots), dtype=torch.bool)
        stays[removed_classes(groups, members)] = False
        found: dict[int, _Kept] = {}

        def keep(plane: Tensor) -> _Kept:
            if id(plane) not in found:
                found[id(plane)] = _Kept(stays[self.trace.labels.find(plane)])
            return found[id(plane)]

        def same(expected: tuple[str, Step], actual: Sizes) -> bool:
            outputs = expected[1].outputs
            shapes = [_shrink(expected[0], shape, [keep(plane) for plane in planes]) for shape, planes in outputs]
            return _fit((expected[0], shapes), actual)

        step = first_difference([(step.name, step) for step in steps], recorder.shapes, same)
        if step == len(steps) and logits is not None:
            return None
        return Failure(steps[min(step, len(steps) - 1)].place, error)


class _Kept:
    """Tell what stays of the dimensions of a plane; `sizes` has those that become smaller, in elements that stay."""

    def __init__(self, stays: Tensor) -> None:
        self.dims = varying(stays)
        self.is_tensor, self.lines = True, dict[int, Tensor]()
        self.all = bool(stays.all())
        if self.all or not self.dims:
            return
        corner = torch.ones_like(stays)
        for dim in self.dims:
            line = (
                stays.any([other for other in self.dims if other != dim], keepdim=True) if len(self.dims) > 1 else stays
            )
            corner &= line
            self.lines[dim] = line.reshape(-1)
        self.is_tensor = len(self.dims) == 1 or (bool(stays.any()) and torch.equal(corner, stays))


def _shrink(name: str, shape: torch.Size, planes: list[_Kept]) -> Shape | None:
    """Tell the shape of a tensor of which this is kept; None if what stays is not a tensor.

    Where nothing is known of a tensor, or of a dimension along which it is repeated, its size may follow others; a
    single channel may be gone.
    """
    if not planes or any(not plane.all and not plane.dims for plane in planes):
        return (None,) * len(shape)
    if not all(plane.is_tensor for plane in planes):
        return None
    lines: dict[int, Tensor] = {}
    for plane in planes:
        for dim, line in plane.lines.items():
            lines[dim] = lines[dim] & line if dim in lines else line
    known = {dim for plane in planes for dim in plane.dims} if name == "expand" else set(range(len(shape)))
    sizes = [int(lines[dim].sum()) if dim in lines else size for dim, size in enumerate(shape)]
    return tuple(size if dim in known else None for dim, size in enumerate(sizes))


def _fit(expected: Sizes, actual: Sizes) -> bool:
    if expected[0] != actual[0] or len(expected[1]) != len(actual[1]):
        return False
    return all(
        some is not None and other is not None and _equal(some, other)
        for some, other in zip(expected[1], actual[1], strict=True)
    )


def _equal(some: Shape, other: Shape) -> bool:
    """Return whether shapes are equal; where dimensions of size 1 stand does not matter: einsum puts them elsewhere."""
    if len(some) != len(other):
        return False
    if all(one in (None, two) for one, two in zip(some, other, strict=True)):
        return True
    return [size for size in some if size != 1] == [size for size in other if size != 1]
