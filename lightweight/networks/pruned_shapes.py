"""Shapes of the narrower layers that structured pruning leaves, which rebuild the network from the dense one."""

from typing import Any

import torch
from torch import Tensor, nn

from lightweight.core.errors import InputError

Shapes = dict[str, list[int]]  # of parameters and buffers, and of attributes that hold sizes, by name
CHANGED = "_changed_sizes"  # the attribute of a layer that names the attributes that were changed


def changed_shapes(before: nn.Module, after: nn.Module) -> Shapes:
    """Return the shapes, by name, of the tensors of `after` whose shape differs from that in `before`."""
    old = list_tensors(before)
    new = {name: list(tensor.shape) for name, tensor in list_tensors(after).items() if tensor.shape != old[name].shape}
    return new | {name: sizes for name, sizes in list_sizes(after).items() if sizes != list_sizes(before).get(name)}


def list_tensors(model: nn.Module) -> dict[str, Tensor]:
    """List the tensors of a network's state by name, and after them the buffers that are in no state."""
    return {**model.state_dict(), **dict(model.named_buffers(remove_duplicate=False))}


def list_sizes(model: nn.Module) -> Shapes:
    """List by name the attributes of layers that `set_size` has changed, such as numbers of heads."""
    changed = {
        f"{name}.{key}": getattr(m, key) for name, m in model.named_modules() for key in vars(m).get(CHANGED, ())
    }
    return {name.removeprefix("."): [size] if type(size) is int else list(size) for name, size in changed.items()}


def set_size(module: nn.Module, key: str, sizes: list[int]) -> None:
    """Set an attribute of a layer, a whole number or several, to smaller sizes, and remember that it was changed."""
    old = getattr(module, key)
    setattr(module, key, sizes[0] if type(old) is int else type(old)(sizes))
    setattr(module, CHANGED, sorted({key, *vars(module).get(CHANGED, ())}))


def read_sizes(module: nn.Module, key: str) -> list[int] | None:
    """Return an attribute that is a whole number or several as a list; None for all others."""
    value: Any = vars(module).get(key)
    sizes = [value] if type(value) is int else list(value) if type(value) in (list, tuple) else []
    return sizes if sizes and all(type(size) is int for size in sizes) else None


def shrink_to(model: nn.Module, shapes: Shapes) -> None:
    """Cut tensors of a model to `shapes` in place, keeping first channels, and update `in_channels` and the like.

    Raises InputError when a shape is not one of a tensor of the model, or larger.
    """
    left = dict(shapes)
    for prefix, module in model.named_modules():
        multiplier = depthwise_multiplier(module)
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                name = f"{prefix}.{key}".removeprefix(".")
                if name in left and tensor is not None:
                    shape = left.pop(name)
                    tensors[key] = _cut(name, tensor, shape)
        sync_attributes(module, multiplier)
        for key in list(vars(module)):
            name, sizes = f"{prefix}.{key}".removeprefix("."), read_sizes(module, key)
            if name in left and sizes:
                _check_sizes(name, sizes, left[name])
                set_size(module, key, left.pop(name))
    if left:
        raise InputError(f"The network has no {next(iter(left))} to make narrower")


def _cut(name: str, tensor: Tensor, shape: Any) -> Tensor:
    """Return the first part of a tensor, of the given shape. Raises InputError when there is no such part."""
    sizes = list(tensor.shape)
    fits = isinstance(shape, list) and len(shape) == len(sizes) and all(type(size) is int for size in shape)
    if not fits or not all(1 <= size <= old for size, old in zip(shape, sizes, strict=True)):
        raise InputError(f"{name} of shape {sizes} cannot be cut to {shape}")
    part = tensor.detach()[tuple(slice(size) for size in shape)].clone(memory_format=torch.preserve_format)
    return nn.Parameter(part, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else part


def _check_sizes(name: str, old: list[int], new: Any) -> None:
    """Raise InputError unless new sizes are as many as the old ones and not larger."""
    fits = isinstance(new, list) and len(new) == len(old) and all(type(size) is int for size in new)
    if not fits or not all(1 <= size <= before for size, before in zip(new, old, strict=True)):
        raise InputError(f"{name} of {old} cannot become {new}")


def depthwise_multiplier(module: nn.Module) -> int:
    """Return the number of output channels per input channel of a depthwise convolution, and 0 for other layers."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and 1 < module.groups == module.in_channels:
        return module.out_channels // module.groups
    return 0


def sync_attributes(module: nn.Module, multiplier: int) -> None:
    """Set the attributes of a layer by the shapes of its tensors; `multiplier` is its `depthwise_multiplier`."""
    match module:
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            module.out_channels = module.weight.shape[0]
            module.groups = module.out_channels // multiplier if multiplier else module.groups
            module.in_channels = module.weight.shape[1] * module.groups
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case nn.modules.batchnorm._NormBase() if module.weight is not None or module.running_mean is not None:
            features = module.weight if module.weight is not None else module.running_mean
            module.num_features = len(features)
        case nn.LayerNorm() if module.weight is not None:
            module.normalized_shape = tuple(module.weight.shape)
        case nn.GroupNorm() if module.weight is not None:
            module.num_channels = len(module.weight)
        case nn.PReLU():
            module.num_parameters = len(module.weight)
