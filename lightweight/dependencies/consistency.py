"""Consistency: a network without channels must give the logits of the reference, or the operator where it does not.

Shapes do not show constants in the code of a network that depend on its widths, such as the scale of attention.
"""

from collections.abc import Set
from copy import deepcopy

import torch
from torch import Tensor, nn

from lightweight.core.module_state import forgetting_caches
from lightweight.dependencies.groups import Group, Size
from lightweight.dependencies.reference import Print, Recorder, Reference
from lightweight.dependencies.smaller import (
    Failure,
    choose_members,
    first_difference,
    make_smaller,
    removed_classes,
    run_smaller,
)
from lightweight.networks.pruned_shapes import changed_shapes, shrink_to
from lightweight.tracing.trace import Place, Trace, label_image, run

TOLERANCE = 1e-6  # of the logits, relative to their root mean square, in float64


class ConsistencyCheck:
    """Remove some members of groups from copies of a network in float64, and compare these with the reference."""

    def __init__(self, model: nn.Module, image: Tensor, trace: Trace, rows: Set[Place], sizes: list[Size]) -> None:
        self.model, self.trace, self.rows, self.sizes = model, trace, rows, sizes
        self.image = torch.linspace(-1, 1, image.numel(), dtype=torch.float64, device=image.device).view(image.shape)

    @torch.no_grad()
    def find_failure(self, groups: dict[str, Group]) -> Failure | None:
        """Return where the network without some members of all these groups fails; None if it does not."""
        members = choose_members(groups)
        if not members:
            return None
        reference = Reference(self.model, self.trace, removed_classes(groups, members), self.rows)
        image = self.image.clone()
        label_image(reference, image)
        expected = run(reference, self.model, image)
        recorder = Recorder()
        smaller = make_smaller(self.model, groups, members, self.sizes, self.trace.labels)
        logits, layer, error = run_smaller(smaller, self.image, recorder)
        if logits is not None and _agree(logits, expected) and _agree(self._rebuild(smaller), expected):
            return None
        step, certain = first_difference(reference.prints, recorder.prints, _same)
        steps = reference.steps
        step = min(step, len(steps) - 1)
        if layer and not certain:  # the first operator of the layer that has raised an error
            step = next((n for n, other in enumerate(steps[step:], step) if other.layer == layer), step)
        return Failure(steps[step].place, layer, error)

    def _rebuild(self, smaller: nn.Module) -> Tensor:
        """Run the network as it is made again from the shapes of a smaller one."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        rebuilt = deepcopy(self.model, {id(tensor): tensor for tensor in tensors})  # buffers may be in no state
        shrink_to(rebuilt, changed_shapes(rebuilt, smaller))
        rebuilt.load_state_dict(smaller.state_dict(), assign=True)
        with forgetting_caches(rebuilt):
            logits: Tensor = rebuilt(self.image)
        return logits


def _agree(logits: Tensor, expected: Tensor) -> bool:
    if logits.shape != expected.shape:
        return False
    limit = (TOLERANCE**2) * expected.square().mean()
    return bool((logits - expected).square().mean() <= limit)


def _same(expected: Print, actual: Print) -> bool:
    scale = 1e-7 * (1 + abs(expected[2]) + expected[3] ** 0.5)
    close = abs(expected[2] - actual[2]) <= scale and abs(expected[3] - actual[3]) <= 1e-7 * (1 + expected[3])
    return expected[:2] == actual[:2] and close
