"""Groups: the channels of layers that can only be removed together, and the reasons of those that must stay."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor, nn

from lightweight.tracing.trace import Axis, Trace

CHANNEL_LAYERS = (nn.Conv2d, nn.Linear)  # the layers whose channels can be removed
SINGLE_CHANNEL = "it has a single channel"
ALL_TIED = "all of its channels go together"
SEVERAL_NAMES = "its weights have several names"
NOT_RUN = "the network's outputs do not depend on it"


@dataclass(frozen=True)
class Cut:
    """Describe what a tensor loses along a dimension: `indices`, of which each belongs to a member of the group."""

    indices: Tensor
    members: Tensor


@dataclass(frozen=True)
class Size:
    """Describe an attribute of a layer that counts channels or parts of them, such as heads.

    `parts` holds the labels by part (parts, labels of each); `lengths` are the sizes that the attribute holds.
    """

    layer: str
    key: str
    lengths: list[int]
    parts: Tensor


@dataclass(frozen=True)
class Group:
    """Describe layers that lose channels together: a member is what goes with one channel of the first of them."""

    layers: list[str]
    size: int
    cuts: dict[Axis, Cut]
    classes: Tensor  # the roots of the members' labels

    @property
    def name(self) -> str:
        return self.layers[0]

    @property
    def width(self) -> int:
        """Return the largest number that divides the channels of every layer that go with each member: mostly 1."""
        counts = [cut.members.bincount(minlength=self.size) for (_, dim), cut in self.cuts.items() if dim == 0]
        return gcd(*(int(count) for counted in counts for count in counted.unique() if count)) or 1

    def leave_some(self, removed: list[int]) -> list[int]:
        """Return the members to remove, without the last that any of the tensors would lose."""
        kept = torch.ones(self.size, dtype=torch.bool)
        kept[removed] = False
        for cut in self.cuts.values():
            if not kept[cut.members].any():
                kept[cut.members[-1]] = True
        return [member for member, stays in zip(removed, kept[removed].tolist(), strict=True) if not stays]


def find_groups(model: nn.Module, trace: Trace) -> tuple[dict[str, Group], dict[str, str]]:
    """Find the groups of a network by name, in its layers' order, and the reason of every layer that is in none."""
    skipped: dict[str, str] = {}
    whole, roots = trace.labels.whole_classes(), {axis: trace.labels.find(own) for axis, own in trace.axes.items()}
    read = torch.zeros(len(trace.labels.roots), dtype=torch.bool)
    for plane in {id(plane): plane for step in trace.steps for plane in step.planes}.values():
        read[trace.labels.find(plane)] = True
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    shared = Counter(names[id(tensor)] for _, tensor in model.named_parameters(remove_duplicate=False))
    computed: dict[str, Tensor] = {}  # the classes of each layer's outputs
    for name, layer in model.named_modules():
        if isinstance(layer, CHANNEL_LAYERS) and isinstance(layer.weight, nn.Parameter):
            axis = (f"{name}.weight".removeprefix("."), 0)
            if shared[axis[0]] > 1:
                skipped[name] = SEVERAL_NAMES
            elif axis not in roots:
                skipped[name] = SINGLE_CHANNEL
            elif not read[roots[axis]].any():
                skipped[name] = NOT_RUN
            else:
                computed[name] = roots[axis]
    stays = torch.zeros(len(trace.labels.roots), dtype=torch.bool)
    stays[[*whole]] = True
    found: dict[str, tuple[list[str], Tensor]] = {}
    for layers in _components(computed, len(trace.labels.roots)):
        members = _in_order(torch.cat([computed[layer] for layer in layers]))
        reasons = members[stays[members]]
        if len(reasons) or len(members) < 2:
            skipped |= dict.fromkeys(layers, whole[int(reasons[0])] if len(reasons) else ALL_TIED)
        else:
            found[layers[0]] = layers, members
    return _make_groups(found, roots), skipped


def _in_order(values: Tensor) -> Tensor:
    """Return the different values of a line in the order in which they come first."""
    unique, numbers = values.unique(return_inverse=True)
    first = torch.full((len(unique),), len(values)).scatter_reduce(0, numbers, torch.arange(len(values)), "amin")
    return unique[first.argsort()]


def _components(classes: dict[str, Tensor], number: int) -> Iterable[list[str]]:
    """List the layers that share classes, of so many, directly or by others, in their order."""
    owners = torch.full((number,), -1)  # the component of each class, which may have become part of another
    components: dict[int, list[str]] = {}
    parts: dict[int, int] = {}
    for place, (layer, labels) in enumerate(classes.items()):
        components[place] = [layer]
        for other in owners[labels].unique().tolist():
            while other in parts:
                other = parts[other]
            if other not in (-1, place):
                components[place] += components.pop(other)
                parts[other] = place
        owners[labels] = place
    order = {layer: place for place, layer in enumerate(classes)}
    joined = [sorted(layers, key=order.__getitem__) for layers in components.values()]
    return sorted(joined, key=lambda layers: order[layers[0]])


def _make_groups(found: Mapping[str, tuple[list[str], Tensor]], roots: Mapping[Axis, Tensor]) -> dict[str, Group]:
    """Make groups of layers and classes by name: list what each tensor loses with the members."""
    groups = {name: Group(layers, len(members), {}, members) for name, (layers, members) in found.items()}
    size = 1 + max(
        (int(own.max()) for own in (*roots.values(), *(group.classes for group in groups.values()))), default=0
    )
    owner, member = torch.full((size,), -1), torch.zeros(size, dtype=torch.int64)
    for number, group in enumerate(groups.values()):
        owner[group.classes] = number
        member[group.classes] = torch.arange(group.size)
    names = list(groups)
    for axis, labels in roots.items():
        owners = owner[labels]
        for number in owners.unique().tolist():
            if number >= 0:
                indices = (owners == number).nonzero().squeeze(1)
                groups[names[number]].cuts[axis] = Cut(indices, member[labels[indices]])
    return groups


def keep_axes(axes: Mapping[Axis, Tensor], removed: Mapping[Axis, Tensor]) -> dict[Axis, Tensor]:
    """Return the labels of axes from which places were removed."""
    left: dict[Axis, Tensor] = {}
    for axis, labels in axes.items():
        kept = torch.ones(len(labels), dtype=torch.bool)
        kept[removed.get(axis, [])] = False
        left[axis] = labels[kept]
    return left


def keep_members(groups: dict[str, Group], removed: Mapping[str, list[int]], trace: Trace) -> dict[str, Group]:
    """Return the groups without members, of a network from which these have been removed; `trace` holds its axes."""
    roots = {axis: trace.labels.find(own) for axis, own in trace.axes.items()}
    left: dict[str, tuple[list[str], Tensor]] = {}
    for name, group in groups.items():
        kept = torch.ones(group.size, dtype=torch.bool)
        kept[removed[name]] = False
        left[name] = group.layers, group.classes[kept]
    return _make_groups(left, roots)
