"""Construction of networks by name: built-in, published, or a function in the user's own project."""

import difflib
import importlib
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from lightweight.core.errors import InputError, bad_param, first_line
from lightweight.core.memory_format import to_memory_format
from lightweight.networks import zoo
from lightweight.networks.architectures import NETWORKS

PUBLISHED = ("torchvision/", "timm/")
INSTALLED = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}  # folders
MAX_ARGUMENTS = {"channels": 16, "image_size": 1024, "num_classes": 100_000}  # also of what a model file asks for


def get_builder(name: str) -> Callable[..., nn.Module]:
    """Return the function that builds a network: built-in, published, or the user's own. Raises InputError."""
    if not isinstance(name, str):
        raise InputError(f"Network {name!r} must be a name")
    if name in NETWORKS:
        return NETWORKS[name]
    if name.startswith(PUBLISHED):
        return zoo.get_builder(name)
    module, _, function = name.partition(":")
    if not function:
        raise InputError(f"unknown network {name!r}{_suggest(name)}")
    if not _is_own(module.partition(".")[0]):
        raise InputError(f"Network {name!r} must be a module in the project's folder: {Path.cwd()}")
    try:
        return getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise InputError(f"Network {name!r} cannot be imported: {first_line(error)}") from None


def _suggest(name: str) -> str:
    """Name the network that is most like an unknown one, or all kinds if none is."""
    known = {network: network for network in NETWORKS} | {model: f"torchvision/{model}" for model in zoo.list_models()}
    close = difflib.get_close_matches(name.lower(), known, n=1)
    if close:
        return f"; did you mean {known[close[0]]}?"
    return f"; known are {', '.join(NETWORKS)}, torchvision/NAME, timm/NAME, or package.module:function of your own"


def _is_own(package: str) -> bool:
    """Tell whether a package lies in the working folder: a model file must not choose other code to run by a name."""
    try:
        spec = find_spec(package)  # which imports nothing
    except ValueError:
        return package not in sys.modules
    if spec is None:
        return True  # then importing the package raises an error that names it
    places = [Path(os.path.normpath(place)) for place in spec.submodule_search_locations or [spec.origin or ""]]
    installed = any(place.is_relative_to(folder) for place in places for folder in INSTALLED)
    return not installed and all(place.is_relative_to(Path.cwd()) for place in places)


def validate_name(name: str) -> str:
    """Return the name itself if there is a network of that name. Raises InputError."""
    get_builder(name)
    return name


def build(name: str, channels: int, image_size: int, num_classes: int, small_stem: bool) -> nn.Module:
    """Build a new network in channels_last and check that it gives one logit per class. Raises InputError."""
    network = _make(name, channels, image_size, num_classes, small_stem)
    check_forward(network, name, channels, image_size, num_classes)
    return to_memory_format(network.train(), torch.channels_last)


def check_forward(network: nn.Module, name: str, channels: int, image_size: int, num_classes: int) -> None:
    """Raise InputError unless the network turns images into one logit per class; leaves it in evaluation mode."""
    shape = (channels, image_size, image_size)
    try:
        with torch.no_grad():
            output = network.eval()(torch.zeros(2, *shape))
    except Exception as error:
        raise InputError(f"Network {name!r} does not accept images of shape {shape}: {first_line(error)}") from None
    if not isinstance(output, torch.Tensor) or output.shape != (2, num_classes):
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise InputError(f"Network {name!r} gives {found} for 2 images; {num_classes} classes need (2, {num_classes})")


def build_on_meta(name: str, **arguments: Any) -> nn.Module | None:
    """Build the network on the meta device, without memory for its weights; None where it cannot be built there."""
    try:
        with torch.device("meta"):
            network = _make(name, **arguments)
        return None if any(map(is_lazy, (*network.parameters(), *network.buffers()))) else network
    except InputError:
        return None


def _make(name: str, channels: int, image_size: int, num_classes: int, small_stem: bool) -> nn.Module:
    """Call the function of a network with the arguments that it takes. Raises InputError."""
    function = get_builder(name)
    arguments: dict[str, Any] = {"channels": channels, "image_size": image_size, "num_classes": num_classes}
    for key, value in arguments.items():
        if type(value) is not int or not 1 <= value <= MAX_ARGUMENTS[key]:
            raise InputError(
                f"Network {name!r}: {key} = {value!r}: must be an integer from 1 to {MAX_ARGUMENTS[key]:,}"
            )
    if name.startswith(PUBLISHED):
        arguments["small_stem"] = small_stem
    elif small_stem:
        raise bad_param("train.small_stem", small_stem, f"only for torchvision/ and timm/ networks, not {name!r}")
    try:
        inspect.signature(function).bind(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"Network {name!r} must be a function of {', '.join(arguments)}: {error}") from None
    try:
        network = function(**arguments)
    except (Exception, SystemExit) as error:
        raise InputError(f"Network {name!r} cannot be built: {first_line(error)}") from None
    if not isinstance(network, nn.Module):
        raise InputError(f"Network {name!r} returned {type(network).__name__}, not a torch.nn.Module")
    return network
