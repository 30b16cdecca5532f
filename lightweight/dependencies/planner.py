"""The planner: where a network fails without channels, it changes what goes together, or spares layers by name."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from lightweight.core.errors import InputError, first_line
from lightweight.dependencies.blame import Blame, Kind, find_sizes
from lightweight.dependencies.consistency import ConsistencyCheck
from lightweight.dependencies.groups import Group, Size, find_groups
from lightweight.dependencies.shapes import ShapeCheck
from lightweight.dependencies.smaller import Failure
from lightweight.tracing.trace import Place, Trace, trace

Check = Callable[[dict[str, Group]], Failure | None]


@dataclass(frozen=True)
class Change:
    """Hold what may be added to a plan: attributes that count channels, splits into whole parts, and tied labels."""

    sizes: list[Size] = field(default_factory=list)
    rows: set[Place] = field(default_factory=set)
    ties: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class Planner:
    """Find groups; where the network fails without channels, change what they are, or spare them by name.

    The places of `rows` remove whole parts, such as heads. `ties` are labels that must go together though no operator
    says so. `sizes` are attributes that count channels.
    """

    def __init__(self, model: nn.Module, image: Tensor, heads: bool) -> None:
        self.model, self.image = model, image
        self.rows: set[Place] = set()
        self.ties: list[tuple[Tensor, Tensor]] = []
        self.sizes: list[Size] = []
        self.spared: dict[str, str] = {}
        self.tried: set[tuple[object, ...]] = set()
        self.known: tuple[Check, Failure | None] | None = None  # what a check has found in the plan as it is
        self._trace()
        found = self.blame.find_heads()
        self.kept: set[Place] = set() if heads else found  # places where heads stay
        if heads and found:
            self.rows = found
            self._trace()

    def _trace(self) -> None:
        """Trace the network and find its groups."""
        layers: list[str] = []
        try:
            self.found: Trace = trace(self.model, self.image, layers, self.rows)
        except Exception as error:  # of any class: it is the network's own
            place = f" at {layers[-1]}" if layers and layers[-1] else ""
            reason = f"it cannot be traced{place}: {first_line(error)}"
            raise InputError(f"Channels of the network cannot be pruned: {reason}") from None
        self._group()

    def _group(self) -> None:
        """Find the groups of the network as it was traced, with the ties, and without the layers that are spared."""
        labels = self.found.labels.copy()
        for some, others in self.ties:
            labels.unite(some, others)
        labels.flatten()
        self.trace = replace(self.found, labels=labels)
        self.groups, self.skipped = find_groups(self.model, self.trace)
        for name in [name for name, group in self.groups.items() if set(group.layers) & self.spared.keys()]:
            reason = next(self.spared[layer] for layer in self.groups[name].layers if layer in self.spared)
            self.skipped |= dict.fromkeys(self.groups.pop(name).layers, reason)
        self.blame = Blame(self.model, self.trace)

    def improve(self, check: Check) -> bool:
        """Return whether the network passes a check without channels; change the plan if not.

        The first change is made that brings the network further than where it fails; if none does, groups are spared.
        """
        failure = self.known[1] if self.known and self.known[0] == check else check(self.groups)
        self.known = None
        if failure is None:
            return True
        failed = self.blame.numbers[failure.place]
        kind = self.blame.kinds[failed]
        guilty = self.blame.find_guilty(failed, self.groups)
        for change in self._changes(failed, guilty):
            if self._try(change, kind):
                before = self.rows, self.ties, self.sizes, self.found
                self.sizes, self.rows = self.sizes + change.sizes, self.rows | change.rows
                self.ties = self.ties + change.ties
                self._trace() if change.rows else self._group()
                after = check(self.groups)
                if after is None or self.blame.numbers[after.place] > failed:
                    self.known = check, after
                    return False
                self.rows, self.ties, self.sizes, self.found = before
                self._group()
        if guilty:
            self._spare(guilty)
        else:
            self.divide(check, self.blame.explain(failed))
        return False

    def _changes(self, failed: int, guilty: dict[str, str]) -> list[Change]:
        """List what may be added to the plan where the network fails, in the order in which it is tried."""
        steps = self.trace.steps
        sizes = [size for step in self.blame.alike(failed) for size in find_sizes(self.model, steps[step])]
        rows, ties = self._splits_of([self.groups[name].classes for name in guilty]), self.blame.find_ties(failed)
        changes = [Change(sizes=sizes), Change(rows=rows), Change(ties=ties)]
        changes += [
            Change(sizes, rows),
            Change(sizes, ties=ties),
            Change(rows=rows, ties=ties),
            Change(sizes, rows, ties),
        ]
        return [change for change in changes if change.sizes or change.rows or change.ties]

    def divide(self, check: Check, reason: str = "without a channel the network fails") -> None:
        """Spare the groups that fail alone, found by halving the list of all."""
        self._spare(dict.fromkeys(self._find_inconsistent(check, self.groups), reason))

    def check_shapes(self, groups: dict[str, Group]) -> Failure | None:
        """Return where a network without some members of groups gives results of the wrong size."""
        return ShapeCheck(self.model, self.image, self.trace, self.sizes).find_failure(groups)

    def check_logits(self, groups: dict[str, Group]) -> Failure | None:
        """Return where a network without some members of groups does not give the results of the reference."""
        return ConsistencyCheck(self.model, self.image, self.trace, self.rows, self.sizes).find_failure(groups)

    def _try(self, change: Change, kind: Kind) -> bool:
        """Return True the first time that a change of these parts is tried at a kind of place."""
        key = (*map(bool, (change.sizes, change.rows, change.ties)), kind)
        new = key not in self.tried
        self.tried.add(key)
        return new

    def _splits_of(self, classes: list[Tensor]) -> set[Place]:
        """List the places where classes are split, and not yet into whole parts, such as heads."""
        find = self.trace.labels.find
        wanted = torch.cat(classes) if classes else torch.zeros(0, dtype=torch.int64)
        places = {place for place, plane in self.trace.splits.items() if torch.isin(find(plane), wanted).any()}
        return places - self.rows - self.kept

    def _spare(self, guilty: dict[str, str]) -> None:
        for name, reason in guilty.items():
            layers = self.groups.pop(name).layers
            self.spared |= dict.fromkeys(layers, reason)
            self.skipped |= dict.fromkeys(layers, reason)

    def _find_inconsistent(self, check: Check, groups: dict[str, Group]) -> list[str]:
        """List the groups that fail alone, among those that do not pass together."""
        passed = check(groups) is None
        if passed or len(groups) < 2:
            return [] if passed else list(groups)
        names = list(groups)
        halves = names[: len(names) // 2], names[len(names) // 2 :]
        return [
            found for half in halves for found in self._find_inconsistent(check, {name: groups[name] for name in half})
        ]
