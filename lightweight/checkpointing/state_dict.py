"""A nested state dict is split into named tensors and a rest that JSON can hold, and put together again."""

from typing import Any

import torch
from torch import Tensor


def flatten_state_dict(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Copy nested dicts and lists so that JSON can hold them; tensors go into `tensors`, their names stay."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, flatten_state_dict(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [flatten_state_dict(item, tensors) for item in value]
    return value


def unflatten_state_dict(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Put together what `flatten_state_dict` has split; tuples come back as lists."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: unflatten_state_dict(item, tensors) for key, item in value["items"]}
    if isinstance(value, list):
        return [unflatten_state_dict(item, tensors) for item in value]
    return value
