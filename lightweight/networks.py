"""A network is a function of channels, image size and number of classes, found by its name."""

import importlib
import inspect
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from lightweight.errors import InputError


def cnn(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """The reference original: 25 MB of float32 at 1x28x28 and 10 classes, 99.8 % of it in the linear layers."""
    pixels = (image_size // 2) ** 2
    return _chain(
        conv1=nn.Conv2d(channels, 16, 5, padding=2, bias=False),
        norm1=nn.BatchNorm2d(16),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(16, 24, 3, padding=1, bias=False),
        norm2=nn.BatchNorm2d(24),
        relu2=nn.ReLU(),
        conv3=nn.Conv2d(24, 32, 3, padding=1, bias=False),
        norm3=nn.BatchNorm2d(32),
        relu3=nn.ReLU(),
        flatten=nn.Flatten(),
        fc1=nn.Linear(32 * pixels, 992, bias=False),
        norm4=nn.BatchNorm1d(992),
        relu4=nn.ReLU(),
        dropout=nn.Dropout(0.5),
        fc2=nn.Linear(992, num_classes),
    )


def convnet(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Two plain 3x3 convolutions and one linear layer: the network of the tutorials."""
    pixels = (image_size // 4) ** 2
    return _chain(
        conv1=nn.Conv2d(channels, 16, 3, padding=1),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(16, 32, 3, padding=1),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc=nn.Linear(32 * pixels, num_classes),
    )


def _chain(**layers: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(layers))


NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {"cnn": cnn, "convnet": convnet}


def find(name: str) -> Callable[..., nn.Module]:
    """The function behind a built-in name or a `package.module:function`. Raises InputError."""
    if name in NETWORKS:
        return NETWORKS[name]
    module, _, function = name.partition(":")
    if not function:
        built_in = ", ".join(NETWORKS)
        raise InputError(f"unknown network {name!r}; known are {built_in}, or package.module:function of your own")
    try:
        return getattr(importlib.import_module(module), function)
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"network {name!r} cannot be imported: {_first_line(error)}") from None


def known(name: str) -> str:
    """The name itself, if `find` finds it. Raises InputError."""
    find(name)
    return name


def build(name: str, channels: int, image_size: int, num_classes: int) -> nn.Module:
    """A new network in channels_last whose output fits: one logit per class. Raises InputError."""
    function = find(name)
    arguments = {"channels": channels, "image_size": image_size, "num_classes": num_classes}
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
