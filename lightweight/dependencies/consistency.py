"""Consistency: a network without channels must give the logits of the reference, or the operator where it does not.

Shapes do not show constants in the code of a network that depend on its widths, such as the scale of attention.
"""

from collections.abc import Set
from copy import deepcopy

import torch
from torch import Tensor, nn

from lightweight.core.errors import first_line
from lightweight.core.module_state import forgetting_caches
from lightweight.dependencies.groups import Group, Size, keep_axes, keep_members
from lightweight.dependencies.reference import Print, Recorder, Reference
from lightweight.dependencies.removal import places_of, remove_places, remove_sizes
from lightweight.dependencies.smaller import (
    Failure,
    choose_members,
    first_difference,
    made_smaller,
    removed_classes,
    run_smaller,
)
from lightweight.networks.pruned_shapes import changed_shapes, shrink_to
from lightweight.tracing.trace import Place, Trace, label_image, run

LEFT = 4  # members of a group that the small copy has at least
TOLERANCE = 1e-6  # of the logits, relative to their root mean square, in float64


class ConsistencyCheck:
    """Remove some members of groups from a small copy of a network in float64, and compare it with the reference.

    The copy keeps a few members of every group. What its code does with widths, it does with any of them.
    """

    def __init__(self, model: nn.Module, image: Tensor, trace: Trace, rows: Set[Place], sizes: list[Size]) -> None:
        self.model, self.trace, self.rows, self.sizes = model, trace, rows, sizes
        self.image = torch.linspace(-1, 1, image.numel(), dtype=torch.float64, device=image.device).view(image.shape)

    @torch.no_grad()
    def find_failure(self, groups: dict[str, Group]) -> Failure | None:
        """Return where the network without some members of all these groups fails; None if it does not."""
        if not groups:
            return None
        labels = self.trace.labels.copy()  # the reference unites labels of the small copy
        before = {
            name: group.leave_some(_leave_few(group.size, LEFT + n % 3))
            for n, (name, group) in enumerate(groups.items())
        }
        with made_smaller(self.model, groups, before, self.sizes, labels):
            small = deepcopy(self.model).double()
        found = Trace(labels, keep_axes(self.trace.axes, places_of(groups, before)))
        few = keep_members(groups, before, found)
        members = choose_members(few)
        reference = Reference(small, found, removed_classes(few, members), self.rows)
        image = self.image.clone()
        label_image(reference, image)
        try:
            expected = run(reference, small, image)
        except Exception as raised:  # the copy has other widths than those whose shapes were compared
            number = min(len(reference.steps), len(self.trace.steps) - 1)
            return Failure(self.trace.steps[number].place, first_line(raised))
        recorder = Recorder()
        gone = torch.cat([removed_classes(groups, before), removed_classes(few, members)])
        with forgetting_caches(small):
            remove_places(small, places_of(few, members))
            remove_sizes(small, self.sizes, labels, gone)
            logits, error = run_smaller(small, self.image, recorder)
            if _agree(logits, expected) and _agree(self._rebuild(small), expected):
                return None
        step = first_difference(reference.prints, recorder.prints, _same)
        return Failure(reference.steps[min(step, len(reference.steps) - 1)].place, error)

    def _rebuild(self, smaller: nn.Module) -> Tensor | None:
        """Run the network as it is made again from the shapes of a smaller one; return its logits, None if it fails."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        rebuilt = deepcopy(self.model, {id(tensor): tensor for tensor in tensors})  # buffers may be in no state
        shrink_to(rebuilt, changed_shapes(rebuilt, smaller))
        rebuilt.load_state_dict(smaller.state_dict(), assign=True)
        with forgetting_caches(rebuilt):
            return run_smaller(rebuilt.double(), self.image, Recorder())[0]


def _leave_few(size: int, number: int) -> list[int]:
    """Choose all members of a group but a few, at random and yet always the same."""
    return sorted(torch.randperm(size, generator=torch.Generator().manual_seed(1))[number:].tolist())


def _agree(logits: Tensor | None, expected: Tensor) -> bool:
    if logits is None or logits.shape != expected.shape:
        return False
    limit = (TOLERANCE**2) * expected.square().mean()
    return bool((logits - expected).square().mean() <= limit)


def _same(expected: Print, actual: Print) -> bool:
    scale = 1e-7 * (1 + abs(expected[2]) + expected[3] ** 0.5)
    close = abs(expected[2] - actual[2]) <= scale and abs(expected[3] - actual[3]) <= 1e-7 * (1 + expected[3])
    return expected[:2] == actual[:2] and close
