"""Blame: what makes a network fail without channels, by the operator at which it first differs.

It may be a group, or an attribute of the layer that counts channels or parts of them, such as heads.

Layers of one kind that execute the same operators run the same code. What is true of an operator in one of them is true
of the same in the others.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lightweight.dependencies.groups import Group, Size
from lightweight.networks.pruned_shapes import read_sizes
from lightweight.tracing.labels import NONE, Planes, varying
from lightweight.tracing.trace import Place, Step, Trace

Code = tuple[type[nn.Module], tuple[str, ...]]  # a kind of layer, and all operators that it executes
Kind = tuple[Code, str, int]  # an operator in such a layer, and its number among those of its name


class Blame:
    """Find the groups at the operators of a trace."""

    def __init__(self, model: nn.Module, found: Trace) -> None:
        self.trace = found
        places = [step.place for step in found.steps]
        executed: dict[str, list[str]] = {}
        for layer, name, _ in places:
            executed.setdefault(layer, []).append(name)
        kinds = {name: type(module) for name, module in model.named_modules()}
        codes: dict[str, Code] = {layer: (kinds[layer], tuple(names)) for layer, names in executed.items()}
        self.kinds: list[Kind] = [(codes[layer], name, number) for layer, name, number in places]
        self.numbers = {place: number for number, place in enumerate(places)}

    def alike(self, step: int) -> list[int]:
        """List the steps that run the same code as one: itself, and those in other layers of the kind."""
        kind = self.kinds[step]
        if _is_plain(kind[0][0]):
            return [step]
        return [number for number, other in enumerate(self.kinds) if other == kind]

    def find_heads(self) -> set[Place]:
        """Find the places where channels are split into heads: those of each are multiplied with each other later.

        That is not so where queries and keys themselves are told apart: they are the parts that meet. Values are split
        like them in the same layer. Attention of channels to channels alone keeps its heads, which lose channels.
        """
        if all(among_channels for *_, among_channels in self.trace.multiplied):
            return set()
        heads: set[tuple[str, int]] = set()  # layers, and into how many parts they split
        for some, others, _ in self.trace.multiplied:
            found: list[tuple[int, str, int]] = []
            for place, plane in self.trace.splits.items():
                number, size = _split(plane)
                parts = plane.reshape(-1, size)
                one, other = (torch.isin(parts, line) for line in (some, others))
                apart = len(varying(plane)) == 2 and bool(other.any()) and not torch.equal(one.any(1), other.any(1))
                if int(one.sum(1).max()) == len(some) and not apart:
                    found.append((size, place[0], number))
            heads |= {(layer, number) for size, layer, number in found if size == min(found)[0]}
        splits = self.trace.splits.items()
        return {place for place, plane in splits if (place[0], _split(plane)[0]) in heads}

    def find_guilty(self, failed: int, groups: dict[str, Group]) -> dict[str, str]:
        """Return the reasons of guilty groups by name; none if no group can be told."""
        owners = self._owners(groups)
        step, steps = self.trace.steps[failed], self.trace.steps
        guilty: dict[str, str] = {}
        if any(True for _ in self._groups_at(step.planes, owners)):
            for number in self.alike(failed):
                for name in list(self._groups_at(steps[number].planes, owners))[:1]:
                    guilty.setdefault(name, self.explain(number))
            return guilty
        for other in reversed([other for other in steps[: failed + 1] if other.layer == step.layer]):
            for name in self._groups_at((*other.results, *other.planes), owners):
                return {name: self.explain(failed)}
        return {}

    def _owners(self, groups: dict[str, Group]) -> list[str]:
        """List the group of every label, or the empty text."""
        owners = [""] * len(self.trace.labels.roots)
        for name, group in groups.items():
            for label in group.classes.tolist():
                owners[label] = name
        return owners

    def find_ties(self, failed: int) -> list[tuple[Tensor, Tensor]]:
        """List channels of the same layers, as many as an operator gives, that may have to go together with these.

        So does attention that gives as many channels as its input has.
        """
        ties: list[tuple[Tensor, Tensor]] = []
        whole = torch.tensor([*self.trace.labels.whole_classes(), NONE])
        find = self.trace.labels.find
        for number in self.alike(failed):
            step = self.trace.steps[number]
            lines = _lines((*step.results, *step.planes))
            before = [
                other
                for other in self.trace.steps[:number]
                if other.layer == step.layer or other.layer.startswith(f"{step.layer}.")
            ]
            pairs = (
                (line.reshape(-1, len(first)), first)
                for line in lines
                for other in before
                for first in _lines(other.planes)
                if len(line) in (len(first), 2 * len(first), 3 * len(first))
                and not torch.isin(find(first), find(line)).any()
                and not torch.isin(find(torch.cat([first, line])), whole).any()
            )
            ties += [pair for pair, _ in zip(pairs, range(1), strict=False)]
        return ties

    def explain(self, number: int) -> str:
        """Explain that an operator does not follow the removal of channels."""
        step = self.trace.steps[number]
        place = f"{step.layer or 'the network'} ({step.name})"
        return f"without a channel the others are no longer where {place} expects them"

    def _groups_at(self, planes: Planes | tuple[Tensor, ...], owners: list[str]) -> Iterator[str]:
        for plane in planes:
            names = [owners[label] for label in self.trace.labels.find(plane).unique().tolist()]
            yield from dict.fromkeys(name for name in names if name)


def _split(plane: Tensor) -> tuple[int, int]:
    """Return into how many parts of what size a plane is split by its last two dimensions along which it varies."""
    first, last = varying(plane)[-2:]
    return plane.shape[first], plane.shape[last]


def _is_plain(kind: type[nn.Module]) -> bool:
    """Return whether layers of a kind are PyTorch's own, whose attributes follow their weights."""
    return kind.__module__.startswith("torch.nn") and kind is not nn.MultiheadAttention


def _lines(planes: Planes | tuple[Tensor, ...]) -> list[Tensor]:
    """List the labels of planes that vary along one dimension."""
    return [plane.reshape(-1) for plane in planes if len(varying(plane)) == 1]


def find_sizes(model: nn.Module, step: Step) -> list[Size]:
    """List the attributes of an operator's layer that are equal to sizes of what the operator reads or gives.

    An attribute may be equal to several sizes, of which it follows the one that changes.
    """
    module = model.get_submodule(step.layer)
    if _is_plain(type(module)):
        return []
    found: list[Size] = []
    for plane in (*step.planes, *step.results):
        for dim in varying(plane):
            parts = plane.movedim(dim, 0).flatten(1) if plane.dim() > 1 else plane.unsqueeze(1)
            for key in vars(module):
                lengths = read_sizes(module, key)
                if lengths and _fits(step.name, lengths, parts):
                    found.append(Size(step.layer, key, lengths, parts))
    return found


def _fits(operator: str, lengths: list[int], parts: Tensor) -> bool:
    """Return whether sizes count the parts: those of a split together, else the only one above 1, as in (C, 1, 1)."""
    if operator == "split_with_sizes" and len(lengths) > 1:
        return min(lengths) > 0 and len(parts) == sum(lengths)
    return min(lengths) > 0 and len(parts) == max(lengths) and sorted(lengths)[-2:-1] in ([], [1])
