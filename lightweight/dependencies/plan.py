"""Plan: which channels of a network can be removed, found by a trace and held against the network's own logits."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

from torch import Tensor, nn
from tqdm import tqdm

from lightweight.core.errors import InputError, first_line
from lightweight.dependencies.consistency import ConsistencyCheck, Failure
from lightweight.dependencies.groups import Group, find_groups
from lightweight.dependencies.trace import Step, Trace, trace

MAX_ROUNDS = 30  # of checks that name a layer; what is left then is divided into halves


@dataclass(frozen=True)
class Plan:
    """Hold the groups of a network by name, and the reason of every layer that is in none."""

    groups: dict[str, Group]
    skipped: dict[str, str]


def make_plan(model: nn.Module, image: Tensor) -> Plan:
    """Find the groups from which channels can be removed, for images (1, C, H, W).

    Leaves the model in evaluation mode. Raises InputError when the network cannot be run.
    """
    model.eval()
    if image.device.type != "cpu":
        model, image = deepcopy(model).cpu(), image.cpu()
    layers: list[str] = []
    try:
        found = trace(model, image, layers)
    except Exception as error:  # of any class: it is the network's own
        place = f" at {layers[-1]}" if layers and layers[-1] else ""
        reason = f"it cannot be traced{place}: {first_line(error)}"
        raise InputError(f"Channels of the network cannot be pruned: {reason}") from None
    groups, skipped = find_groups(model, found)
    check = ConsistencyCheck(model, image, found)
    blame = Blame(model, found)
    with tqdm(total=len(groups), desc="groups checked", leave=False, disable=None) as progress:
        for _ in range(MAX_ROUNDS):
            failure = check.find_failure(groups)
            if failure is None:
                break
            guilty = blame.find_guilty(failure, groups)
            if not guilty:
                guilty = dict.fromkeys(_find_inconsistent(check, groups), blame.explain(failure.step))
            for name, reason in guilty.items():
                skipped |= dict.fromkeys(groups.pop(name).layers, reason)
            progress.update(len(guilty))
        else:
            for name in _find_inconsistent(check, groups):
                skipped |= dict.fromkeys(groups.pop(name).layers, "without a channel the network fails")
    return Plan(groups, skipped)


def _find_inconsistent(check: ConsistencyCheck, groups: dict[str, Group]) -> list[str]:
    """List the groups that fail alone, among those that do not pass together."""
    passed = check.find_failure(groups) is None
    if passed or len(groups) < 2:
        return [] if passed else list(groups)
    names = list(groups)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    return [found for half in halves for found in _find_inconsistent(check, {name: groups[name] for name in half})]


class Blame:
    """Find the groups because of which a network fails, by the operator at which it first differs.

    Layers of one kind run the same code. So the groups at the same operator in the others are guilty, too.
    """

    def __init__(self, model: nn.Module, found: Trace) -> None:
        self.trace = found
        kinds = {name: type(module) for name, module in model.named_modules()}
        numbers: dict[str, int] = {}
        self.places: list[tuple[type[nn.Module], int, str]] = []  # of every step: kind of layer, number in it, operator
        for step in found.steps:
            numbers[step.layer] = numbers.get(step.layer, 0) + 1
            self.places.append((kinds[step.layer], numbers[step.layer], step.name))

    def find_guilty(self, failure: Failure, groups: dict[str, Group]) -> dict[str, str]:
        """Return the reasons of guilty groups by name; none if no group can be told."""
        owners = {int(label): name for name, group in groups.items() for label in group.classes}
        step = self.trace.steps[failure.step]
        place = self.places[failure.step]
        guilty: dict[str, str] = {}
        alike = range(len(self.places)) if not place[0].__module__.startswith("torch.nn") else [failure.step]
        for number in alike:
            if self.places[number] == place:
                for name in list(self._groups_at(self.trace.steps[number], owners))[:1]:
                    guilty.setdefault(name, self.explain(number))
        if not any(name in guilty for name in self._groups_at(step, owners)):
            guilty = {}
        if not guilty:
            others = [other for other in self.trace.steps[: failure.step + 1] if other.layer == step.layer]
            for other in reversed(others):
                for name in self._groups_at(other, owners):
                    return {name: self.explain(failure.step)}
        return guilty

    def explain(self, number: int) -> str:
        """Explain that an operator does not follow the removal of channels."""
        step = self.trace.steps[number]
        operator = step.name.removeprefix("aten.").split(".")[0]
        return f"without a channel the others are no longer where {step.layer or 'the network'} ({operator}) expects them"

    def _groups_at(self, step: Step, owners: dict[int, str]) -> Iterator[str]:
        for plane in step.planes:
            names = [owners[label] for label in self.trace.labels.find(plane).unique().tolist() if label in owners]
            yield from dict.fromkeys(names)
