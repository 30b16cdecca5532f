"""Shapes of the narrower layers that structured pruning leaves, which rebuild the network from the dense one."""

from typing import Any

import torch
from torch import Tensor, nn

from lightweight.core.errors import InputError

Shapes = dict[str, list[int]]  # of tensors in `state_dict`, by name


def changed_shapes(before: nn.Module, after: nn.Module) -> Shapes:
    """Return the shapes, by name, of the tensors of `after` whose shape differs from that in `before`."""
    old = before.state_dict()
    return {name: list(tensor.shape) for name, tensor in after.state_dict().items() if tensor.shape != old[name].shape}


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
