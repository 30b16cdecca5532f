"""The smaller network of a check: it lacks some members of groups, of which no two sizes fit each other by chance."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightweight.core.errors import first_line
from lightweight.core.module_state import forgetting_caches
from lightweight.dependencies.groups import Group, Size
from lightweight.dependencies.removal import places_of, remove_places, remove_sizes
from lightweight.tracing.labels import Labels
from lightweight.tracing.trace import Place, plain_operators

SHARES = (0.5, 0.25, 0.4)  # of the members of groups in turn: all different, so that none fit each other by chance

SLICE = "slice"  # the operator's name

Members = dict[str, list[int]]


@dataclass(frozen=True)
class Failure:
    """Describe where a network without channels first differs: the place of the operator, and an error."""

    place: Place
    error: str = ""


def choose_members(groups: dict[str, Group]) -> Members:
    """Choose members to remove of every group, at least one and not all, at random and yet always the same."""
    shares = {name: SHARES[number % len(SHARES)] for number, name in enumerate(groups)}
    return {name: group.leave_some(_choose(group.size, shares[name])) for name, group in groups.items()}


def _choose(size: int, share: float) -> list[int]:
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    return sorted(order[: min(size - 1, max(1, round(share * size)))].tolist())


def choose_parts(groups: dict[str, Group]) -> list[Members]:
    """Choose members of some of the groups, several times, so that groups of the same size do not fit by chance.

    Of any two groups that lose as much of as many members, one loses members where the other is whole.
    """
    chosen = choose_members(groups)
    alike: dict[tuple[int, int], list[str]] = {}
    for name, members in chosen.items():
        alike.setdefault((groups[name].size, len(members)), []).append(name)
    number = {name: place for names in alike.values() for place, name in enumerate(names)}
    bits = max((place.bit_length() for place in number.values()), default=0)
    return [{name: chosen[name] for name in groups if number[name] >> bit & 1} for bit in range(bits)]


def removed_classes(groups: dict[str, Group], members: Members) -> Tensor:
    """Return the classes of members of groups."""
    return torch.cat([groups[name].classes[numbers] for name, numbers in members.items()])


@contextmanager
def made_smaller(
    model: nn.Module, groups: dict[str, Group], members: Members, sizes: list[Size], labels: Labels, values: bool = True
) -> Iterator[None]:
    """Remove members of groups from a network within the context; without `values`, it has the right shapes alone."""
    with forgetting_caches(model):
        remove_places(model, places_of(groups, members), values)
        remove_sizes(model, sizes, labels, removed_classes(groups, members))
        yield


@torch.no_grad()
def run_smaller(smaller: nn.Module, image: Tensor, recorder: Any) -> tuple[Tensor | None, str]:
    """Run a network under a recorder; returns its logits, or None and the error."""
    try:
        with plain_operators(), recorder:
            return smaller(image), ""
    except Exception as error:  # raised, for example, by a layer that no longer fits the one before
        return None, first_line(error)


def first_difference(expected: Sequence[Any], actual: Sequence[Any], same: Callable[[Any, Any], bool]) -> int:
    """Return the number of the first operator whose result is not the expected one, or how many there are.

    Items begin with the name of the operator. A slice that takes everything is executed in neither or in one of both.
    """
    number = other = 0
    while number < len(expected) and other < len(actual):
        if expected[number][0] == SLICE != actual[other][0]:
            number += 1
        elif actual[other][0] == SLICE != expected[number][0]:
            other += 1
        elif same(expected[number], actual[other]):
            number, other = number + 1, other + 1
        else:
            break
    return number
