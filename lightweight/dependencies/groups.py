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
        return [member for member in removed if not kept[member]]


def find_groups(model: nn.Module, trace: Trace) -> tuple[dict[str, Group], dict[str, str]]:
    """Find the groups of a network by name, in its layers' order, and the reason of every layer that is in none."""
    skipped: dict[str, str] = {}
    whole, roots = trace.labels.whole_classes(), {axis: trace.labels.find(own) for axis, own in trace.axes.items()}
    read = torch.zeros(len(trace.labels.roots), dtype=torch.bool)
    for plane in {id(plane): plane for step in trace.steps for plane in step.planes}.values():
        read[trace.labels.find(plane)] = True
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    shared = Counter(names[id(tensor)] for _, tensor in model.named_parameters(remove_duplicate=False))
    computed: dict[str, list[int]] = {}  # the classes of each layer's outputs
    for name, layer in model.named_modules():
        if isinstance(layer, CHANNEL_LAYERS) and isinstance(layer.weight, nn.Parameter):
            axis = (f"{name}.weight".removeprefix("."), 0)
            computed[name] = roots[axis].tolist() if axis in roots else []
            if shared[axis[0]] > 1:
                skipped[name] = SEVERAL_NAMES
            elif not computed[name]:
                skipped[name] = SINGLE_CHANNEL
            elif not read[computed[name]].any():
                skipped[name] = NOT_RUN
    found: dict[str, tuple[list[str], list[int]]] = {}
    for layers in _components({name: classes for name, classes in computed.items() if name not in skipped}):
        members = list(dict.fromkeys(label for layer in layers for label in computed[layer]))
        reasons = [whole[label] for label in members if label in whole]
        if reasons or len(members) < 2:
            skipped |= dict.fromkeys(layers, reasons[0] if reasons else ALL_TIED)
        else:
            found[layers[0]] = layers, members
    return _make_groups(found, roots), skipped


def _components(classes: dict[str, list[int]]) -> Iterable[list[str]]:
    """List the layers that share classes, directly or by others, in their order."""
    group_of: dict[int, list[str]] = {}
    for layer, labels in classes.items():
        joined: list[str] = []
        for group in {id(group_of[label]): group_of[label] for label in labels if label in group_of}.values():
            joined += group
        joined.append(layer)
        for member in joined:
            group_of.update(dict.fromkeys(classes[member], joined))
    order = list(classes)
    unique = {id(group): group for group in group_of.values()}.values()
    return sorted((sorted(group, key=order.index) for group in unique), key=lambda group: order.index(group[0]))


def _make_groups(found: Mapping[str, tuple[list[str], list[int]]], roots: Mapping[Axis, Tensor]) -> dict[str, Group]:
    """Make groups of layers and classes by name: list what each tensor loses with the members."""
    groups = {name: Group(layers, len(members), {}, torch.tensor(members)) for name, (layers, members) in found.items()}
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
    left: dict[str, tuple[list[str], list[int]]] = {}
    for name, group in groups.items():
        gone = set(removed[name])
        left[name] = group.layers, [int(own) for number, own in enumerate(group.classes) if number not in gone]
    return _make_groups(left, roots)
