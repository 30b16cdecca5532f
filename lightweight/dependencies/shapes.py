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
    make_smaller,
    removed_classes,
    run_smaller,
)
from lightweight.tracing.labels import varying
from lightweight.tracing.planes import results_in
from lightweight.tracing.rules import COPIES, IGNORED, name_operator
from lightweight.tracing.trace import Step, Trace, imitate

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
        smaller = make_smaller(self.model, groups, members, self.sizes, self.trace.labels, values=False)
        logits, error = run_smaller(smaller, self.image, recorder)
        gone = torch.zeros(len(self.trace.labels.roots), dtype=torch.bool)
        gone[removed_classes(groups, members)] = True
        expected = [self._expect(step, gone) for step in steps]
        step = first_difference(expected, recorder.shapes, _fit)
        if step == len(steps) and logits is not None:
            return None
        return Failure(steps[min(step, len(steps) - 1)].place, error)

    def _expect(self, step: Step, gone: Tensor) -> Sizes:
        """Tell the shapes of what an operator gives without the channels of classes that are gone."""
        return step.name, [self._shrink(step.name, shape, planes, gone) for shape, planes in step.outputs]

    def _shrink(self, name: str, shape: torch.Size, planes: list[Tensor], gone: Tensor) -> Shape | None:
        """Tell the shape of a tensor without these classes; None if what stays is not a tensor.

        Where nothing is known of a tensor, or of a dimension along which it is repeated, its size may follow others; a
        single channel may be gone.
        """
        if not planes:
            return (None,) * len(shape)
        kept: dict[int, Tensor] = {}
        for plane in planes:
            lost = gone[self.trace.labels.find(plane)]
            if not lost.any():
                continue
            stays, dims = ~lost, varying(plane)
            if not dims:
                return (None,) * len(shape)
            if len(dims) == 1:
                line = stays.reshape(-1)
                kept[dims[0]] = kept[dims[0]] & line if dims[0] in kept else line
                continue
            corner = torch.ones_like(stays)
            for dim in dims:
                others = [other for other in dims if other != dim]
                line = stays.any(others, keepdim=True)
                corner &= line
                kept[dim] = kept[dim] & line.reshape(-1) if dim in kept else line.reshape(-1)
            if not stays.any() or not torch.equal(corner, stays):
                return None
        known = {dim for plane in planes for dim in varying(plane)} if name == "expand" else set(range(len(shape)))
        sizes = [int(kept[dim].sum()) if dim in kept else size for dim, size in enumerate(shape)]
        return tuple(size if dim in known else None for dim, size in enumerate(sizes))


def _fit(expected: Sizes, actual: Sizes) -> bool:
    if expected[0] != actual[0] or len(expected[1]) != len(actual[1]):
        return False
    for some, other in zip(expected[1], actual[1], strict=True):
        if some is None or other is None or len(some) != len(other):
            return False
        if any(one not in (None, two) for one, two in zip(some, other, strict=True)):
            return False
    return True
