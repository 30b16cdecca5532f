"""Conversion of nested state dicts to named tensors and a structure that JSON can represent, and back."""

from typing import Any

import torch
from torch import Tensor


def flatten_state_dict(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Convert nested dicts and lists to a structure for JSON, and copy their tensors to the CPU into `tensors`.

    The structure refers to the tensors by their names. Tuples become lists; keys of any type stay as they are.
    """
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
    """Restore the nested dicts and lists that `flatten_state_dict` has converted."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: unflatten_state_dict(item, tensors) for key, item in value["items"]}
    if isinstance(value, list):
        return [unflatten_state_dict(item, tensors) for item in value]
    return value
