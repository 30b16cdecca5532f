"""Sizes: attributes of layers that count channels or parts of them, such as numbers of heads and widths of splits."""

from torch import Tensor, nn

from lightweight.dependencies.groups import Size
from lightweight.dependencies.memory import varying
from lightweight.dependencies.trace import Step
from lightweight.networks.pruned_shapes import read_sizes


def find_sizes(model: nn.Module, step: Step) -> list[Size]:
    """List the attributes of an operator's layer that are equal to sizes of what the operator reads or gives.

    An attribute may be equal to several sizes, of which it follows the one that changes.
    """
    module = model.get_submodule(step.layer)
    if type(module).__module__.startswith("torch.nn"):
        return []  # whose attributes follow their weights
    found: list[Size] = []
    for plane in (*step.planes, *step.results):
        for dim in varying(plane):
            parts = plane.movedim(dim, 0).flatten(1) if plane.dim() > 1 else plane.unsqueeze(1)
            for key in vars(module):
                lengths = read_sizes(module, key)
                if lengths and _fits(lengths, parts):
                    found.append(Size(step.layer, key, lengths, parts))
    return found


def _fits(lengths: list[int], parts: Tensor) -> bool:
    """Return whether sizes count the parts: together, or the only one that is larger than 1, as in (channels, 1, 1)."""
    return min(lengths) > 0 and len(parts) in (sum(lengths), max(lengths) if sorted(lengths)[-2:-1] == [1] else 0)
