"""A nested state becomes tensors with names, and what JSON can hold of the rest; and the state again."""

from typing import Any

import torch
from torch import Tensor


def flatten_state_dict(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A copy of nested dicts and lists that JSON can hold; tensors move into `tensors`, and leave their names."""
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
    """What `split` was given, with lists for tuples."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: unflatten_state_dict(item, tensors) for key, item in value["items"]}
    if isinstance(value, list):
        return [unflatten_state_dict(item, tensors) for item in value]
    return value
