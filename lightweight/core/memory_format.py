"""Conversion of a whole network to a memory format, which the types of `nn.Module.to` leave out."""

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def to_memory_format(model: Network, memory_format: torch.memory_format) -> Network:
    """Lay out the 4-d parameters and buffers of `model` as `memory_format` says, in place, and return `model`."""
    return model.to(memory_format=memory_format)  # type: ignore[call-overload]  # documented, in no overload of torch
