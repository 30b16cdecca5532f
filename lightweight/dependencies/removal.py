"""Removal of channels from the tensors of a network, and what becomes of the attributes of its layers."""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from lightweight.dependencies.groups import Group, Size
from lightweight.networks.pruned_shapes import depthwise_multiplier, set_size, sync_attributes
from lightweight.tracing.labels import Labels
from lightweight.tracing.trace import Axis


def places_of(groups: Mapping[str, Group], members: Mapping[str, list[int]]) -> dict[Axis, Tensor]:
    """List the places along each axis that belong to members of groups."""
    places: dict[Axis, list[Tensor]] = {}
    for name, numbers in members.items():
        if numbers:
            chosen = torch.zeros(groups[name].size, dtype=torch.bool)
            chosen[numbers] = True
            for axis, cut in groups[name].cuts.items():
                places.setdefault(axis, []).append(cut.indices[chosen[cut.members]])
    return {axis: torch.cat(own).sort().values for axis, own in places.items()}


@torch.no_grad()
def remove_places(model: nn.Module, places: Mapping[Axis, Tensor], values: bool = True) -> None:
    """Remove places along axes of a network's tensors in place, and update `in_channels` and the like.

    Without `values`, the tensors that lose something hold any values, and nothing is copied.
    """
    by_module: dict[str, list[tuple[str, int, Tensor]]] = {}
    for (name, dim), indices in places.items():
        owner, _, key = name.rpartition(".")
        if len(indices):
            by_module.setdefault(owner, []).append((key, dim, indices))
    for layer, cuts in by_module.items():
        module = model.get_submodule(layer)
        multiplier = depthwise_multiplier(module)
        for key, dim, indices in cuts:
            tensor = getattr(module, key)
            if values:
                kept = torch.ones(tensor.shape[dim], dtype=torch.bool)
                kept[indices] = False
                part = tensor.detach().index_select(dim, kept.nonzero().squeeze(1).to(tensor.device))
            else:
                part = _first_values(tensor, [s - len(indices) * (d == dim) for d, s in enumerate(tensor.shape)])
            if isinstance(tensor, nn.Parameter):
                module._parameters[key] = nn.Parameter(part, tensor.requires_grad)
            else:
                module._buffers[key] = part
        sync_attributes(module, multiplier)


def _first_values(tensor: Tensor, shape: list[int]) -> Tensor:
    """Return a tensor of a smaller shape that shares the memory of another where that is in order."""
    if not tensor.is_contiguous():
        return tensor.new_zeros(shape)
    return tensor.detach().view(-1)[: prod(shape)].view(shape)


def remove_sizes(model: nn.Module, sizes: list[Size], labels: Labels, removed: Tensor) -> None:
    """Set the attributes that count channels to what is left of them without the removed classes."""
    gone = torch.zeros(len(labels.roots), dtype=torch.bool)
    gone[labels.find(removed)] = True
    for size in sizes:
        left = ~(gone[labels.find(size.parts)].all(1))
        if sum(size.lengths) == len(left):
            lengths = [int(part.sum()) for part in left.split(size.lengths)]
        else:
            lengths = [int(left.sum()) if length > 1 else 1 for length in size.lengths]
        if lengths != size.lengths and min(lengths) > 0:
            set_size(model.get_submodule(size.layer), size.key, lengths)
