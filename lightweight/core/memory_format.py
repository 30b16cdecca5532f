"""Conversion of a whole network to a memory format; `nn.Module.to` refuses one with 5-d weights beside the 4-d ones."""

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def to_memory_format(model: Network, memory_format: torch.memory_format) -> Network:
    """Lay out the 4-d parameters and buffers of `model` as `memory_format` says, in place, and return `model`."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=memory_format)
    return model
