"""Consistency: a network without channels must give the logits of the reference, or the layer where it does not.

Constants in the code of a network, such as the numbers of a reshape, do not follow what is removed. Only running the
smaller network shows them.
"""

from collections.abc import Set
from copy import deepcopy
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from lightweight.core.errors import first_line
from lightweight.core.module_state import forgetting_caches
from lightweight.dependencies.groups import Group, Size
from lightweight.dependencies.reference import Print, Recorder, Reference
from lightweight.dependencies.removal import places_of, remove_sizes, without_places
from lightweight.dependencies.trace import Trace, label_image, naming_layers, plain_operators, run
from lightweight.networks.pruned_shapes import changed_shapes, shrink_to

SHARES = (0.5, 0.25, 0.4)  # of the members of groups in turn: all different, so that none fit each other by chance
WINDOW = 6  # of operators in which results agree again
TOLERANCE = 1e-6  # of the logits, relative to their root mean square, in float64


@dataclass(frozen=True)
class Failure:
    """Describe where a network without channels first differs: the step of the trace, the layer, and an error."""

    step: int
    layer: str
    error: str = ""


class ConsistencyCheck:
    """Remove some members of groups from copies of a network in float64, and compare these with the reference."""

    def __init__(self, model: nn.Module, image: Tensor, trace: Trace, rows: Set[int], sizes: list[Size]) -> None:
        self.model, self.trace, self.rows, self.sizes = model, trace, rows, sizes
        self.image = torch.linspace(-1, 1, image.numel(), dtype=torch.float64, device=image.device).view(image.shape)

    @torch.no_grad()
    def find_failure(self, groups: dict[str, Group]) -> Failure | None:
        """Return where the network without some members of all these groups fails; None if it does not."""
        members = {name: _choose(group.size, SHARES[n % len(SHARES)]) for n, (name, group) in enumerate(groups.items())}
        removed = [group.classes[members[name]] for name, group in groups.items()]
        if not removed:
            return None
        reference = Reference(self.model, self.trace, torch.cat(removed), self.rows)
        image = self.image.clone()
        label_image(reference, image)
        expected = run(reference, self.model, image)
        recorder, layers, reason = Recorder(), list[str](), ""
        try:
            smaller = without_places(self.model, places_of(groups, members))
            remove_sizes(smaller, self.sizes, self.trace.labels, torch.cat(removed))
            with forgetting_caches(smaller), plain_operators(), naming_layers(smaller, layers), recorder:
                logits = smaller(self.image)
            if _agree(logits, expected):
                rebuilt = deepcopy(self.model).to("meta")
                shrink_to(rebuilt, changed_shapes(rebuilt, smaller))
                rebuilt.load_state_dict(smaller.state_dict(), assign=True)
                with forgetting_caches(rebuilt):
                    if _agree(rebuilt(self.image), expected):
                        return None
        except Exception as error:  # raised, for example, by a layer that no longer fits the one before
            reason = first_line(error)
        step, certain = _first_difference(reference.prints, recorder.prints)
        if layers and not certain:  # the first operator of the layer that has raised an error
            steps = enumerate(self.trace.steps[step:], step)
            step = next((number for number, other in steps if other.layer == layers[-1]), step)
        return Failure(step, layers[-1] if layers else "", reason)


def _choose(size: int, share: float) -> list[int]:
    """Choose a share of the members of a group, at least one and not all, at random and yet always the same."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    return sorted(order[: min(size - 1, max(1, round(share * size)))].tolist())


def _agree(logits: Tensor, expected: Tensor) -> bool:
    if logits.shape != expected.shape:
        return False
    limit = (TOLERANCE**2) * expected.square().mean()
    return bool((logits - expected).square().mean() <= limit)


def _first_difference(expected: list[Print], actual: list[Print]) -> tuple[int, bool]:
    """Return the number of the first operator whose result is not the expected one, and whether it is surely that.

    Where the operators differ, because tensors lie in memory in another way, the next results that agree count.
    """
    step = other = 0
    while step < len(expected) and other < len(actual):
        if expected[step][0] == actual[other][0]:
            if not _same(expected[step], actual[other]):
                return step, True
            step, other = step + 1, other + 1
            continue
        ahead = sorted(product(range(WINDOW), repeat=2), key=sum)
        pairs = [(step + i, other + j) for i, j in ahead if step + i < len(expected) and other + j < len(actual)]
        agreeing = next((pair for pair in pairs if _same(expected[pair[0]], actual[pair[1]])), None)
        if agreeing is None:
            return step, False
        step, other = agreeing
    return min(step, len(expected) - 1), False


def _same(expected: Print, actual: Print) -> bool:
    scale = 1e-7 * (1 + abs(expected[2]) + expected[3] ** 0.5)
    close = abs(expected[2] - actual[2]) <= scale and abs(expected[3] - actual[3]) <= 1e-7 * (1 + expected[3])
    return expected[:2] == actual[:2] and close
