"""A network is a function of channels, image size and number of classes, found by its name and built to fit."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lightweight import zoo
from lightweight.architectures import NETWORKS
from lightweight.errors import InputError, bad_param

PUBLISHED = ("torchvision/", "timm/")


def find(name: str) -> Callable[..., nn.Module]:
    """The function behind the name of a built-in or published network, or of the user's own. Raises InputError."""
    if name in NETWORKS:
        return NETWORKS[name]
    if name.startswith(PUBLISHED):
        return zoo.find(name)
    module, _, function = name.partition(":")
    if not function:
        built_in = ", ".join(NETWORKS)
        own = "torchvision/NAME, timm/NAME, or package.module:function of your own"
        raise InputError(f"unknown network {name!r}; known are {built_in}, {own}")
    try:
        return getattr(importlib.import_module(module), function)
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"network {name!r} cannot be imported: {_first_line(error)}") from None


def known(name: str) -> str:
    """The name itself, if `find` finds it. Raises InputError."""
    find(name)
    return name


def build(name: str, channels: int, image_size: int, num_classes: int, small_stem: bool) -> nn.Module:
    """A new network in channels_last whose output fits: one logit per class. Raises InputError."""
    function = find(name)
    arguments: dict[str, Any] = {"channels": channels, "image_size": image_size, "num_classes": num_classes}
    if name.startswith(PUBLISHED):
        arguments["small_stem"] = small_stem
    elif small_stem:
        raise bad_param("train.small_stem", small_stem, f"only for torchvision/ and timm/ networks, not {name!r}")
    try:
        inspect.signature(function).bind(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"network {name!r} must be a function of {', '.join(arguments)}: {error}") from None
    try:
        network = function(**arguments)
    except Exception as error:
        raise InputError(f"network {name!r} cannot be built: {_first_line(error)}") from None
    if not isinstance(network, nn.Module):
        raise InputError(f"network {name!r} returned {type(network).__name__}, not a torch.nn.Module")
    shape = (channels, image_size, image_size)
    try:
        with torch.no_grad():
            output = network.eval()(torch.zeros(2, *shape))
    except Exception as error:
        raise InputError(f"network {name!r} does not accept images of shape {shape}: {_first_line(error)}") from None
    if not isinstance(output, torch.Tensor) or output.shape != (2, num_classes):
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise InputError(f"network {name!r} gives {found} for 2 images; {num_classes} classes need (2, {num_classes})")
    return network.train().to(memory_format=torch.channels_last)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
