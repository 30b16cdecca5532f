"""A network is a function of channels, image size and number of classes, found by its name."""

import importlib
from collections.abc import Callable

import torch
from torch import nn

from lightweight.errors import InputError


def cnn(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """The reference original: 25 MB of float32 at 1x28x28 and 10 classes, 99.8 % of it in the linear layers."""
    pixels = (image_size // 2) ** 2
    return nn.Sequential(
        _conv(channels, 16, 5),
        nn.MaxPool2d(2),
        _conv(16, 24, 3),
        _conv(24, 32, 3),
        nn.Flatten(),
        nn.Linear(32 * pixels, 992, bias=False),
        nn.BatchNorm1d(992),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(992, num_classes),
    )


def convnet(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Two plain 3x3 convolutions and one linear layer: the network of the tutorials."""
    pixels = (image_size // 4) ** 2
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * pixels, num_classes),
    )


def _conv(channels: int, filters: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(filters), nn.ReLU()
    )


NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {"cnn": cnn, "convnet": convnet}


def find(name: str) -> Callable[..., nn.Module]:
    """The function behind a built-in name or a `package.module:function`. Raises InputError."""
    if name in NETWORKS:
        return NETWORKS[name]
    module, _, function = name.partition(":")
    if not function:
        known = ", ".join(NETWORKS)
        raise InputError(f"unknown network {name!r}; known are {known}, or package.module:function of your own")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"network {name!r} cannot be imported: {error}") from None


def build(name: str, channels: int, image_size: int, num_classes: int) -> nn.Module:
    """A new network in channels_last whose output fits: one logit per class. Raises InputError."""
    network = find(name)(channels=channels, image_size=image_size, num_classes=num_classes)
    if not isinstance(network, nn.Module):
        raise InputError(f"network {name!r} returned {type(network).__name__}, not a torch.nn.Module")
    shape = (channels, image_size, image_size)
    try:
        with torch.no_grad():
            output = network.eval()(torch.zeros(2, *shape))
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"network {name!r} does not accept images of shape {shape}: {first}") from None
    if not isinstance(output, torch.Tensor) or output.shape != (2, num_classes):
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise InputError(f"network {name!r} gives {found} for 2 images; {num_classes} classes need (2, {num_classes})")
    return network.train().to(memory_format=torch.channels_last)
