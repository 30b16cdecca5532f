"""Published architectures by name, from torchvision or timm, for any number of channels, image size and stem."""

import difflib
import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from lightweight.core.errors import InputError
from lightweight.core.torchvision_compat import torchvision

NO_AUXILIARY_OUTPUTS = {"aux_logits": False, "init_weights": True}  # which two networks give in training mode
OPTIONS: dict[str, dict[str, Any]] = {"googlenet": NO_AUXILIARY_OUTPUTS, "inception_v3": NO_AUXILIARY_OUTPUTS}


def get_builder(name: str) -> Callable[..., nn.Module]:
    """Return the function that builds `torchvision/NAME` or `timm/NAME`. Raises InputError."""
    source, _, model = name.partition("/")
    make = _torchvision(model) if source == "torchvision" else _timm(model)

    def build(channels: int, image_size: int, num_classes: int, small_stem: bool) -> nn.Module:
        network = make(channels, image_size, num_classes)
        fit_stem(network, channels, small_stem)
        return network

    return build


def list_models() -> list[str]:
    """List the classifiers of torchvision by name."""
    models = torchvision("models")
    return models.list_models(module=models)


def _torchvision(model: str) -> Callable[..., nn.Module]:
    """Return a function that makes a classifier of torchvision with random weights. Raises InputError."""
    models = torchvision("models")
    if model not in list_models():
        close = difflib.get_close_matches(model.lower(), list_models(), n=1)
        rule = f"did you mean torchvision/{close[0]}?" if close else "torchvision.models.list_models() lists them"
        raise InputError(f"torchvision has no classifier {model!r}; {rule}")

    def make(channels: int, image_size: int, num_classes: int) -> nn.Module:
        options = dict(OPTIONS.get(model, {}))
        if model.startswith("vit_"):
            options["image_size"] = image_size
        if model.startswith("maxvit_"):
            options["input_size"] = (image_size, image_size)
        return models.get_model(model, weights=None, num_classes=num_classes, **options)

    return make


def _timm(model: str) -> Callable[..., nn.Module]:
    """Return a function that makes a network of timm with random weights. Raises InputError."""
    torchvision("models")  # which timm imports, too
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise InputError(f"The network 'timm/{model}' needs the package timm: pip install timm") from None
    if not timm.is_model(model):
        close = difflib.get_close_matches(model.lower(), timm.list_models(), n=1)
        rule = f"did you mean timm/{close[0]}?" if close else "timm.list_models() lists them"
        raise InputError(f"timm has no network {model!r}; {rule}")

    def make(channels: int, image_size: int, num_classes: int) -> nn.Module:
        try:
            return timm.create_model(model, in_chans=channels, num_classes=num_classes, img_size=image_size)
        except TypeError:  # most networks take any size and no such argument
            return timm.create_model(model, in_chans=channels, num_classes=num_classes)

    return make


def fit_stem(network: nn.Module, channels: int, small: bool) -> None:
    """Give the first convolution `channels` inputs; `small` makes it 3x3 with stride 1 and drops its max-pool.

    The small stem is the one of ResNets for CIFAR (He et al. 2016): at 32x32 pixels the stem for ImageNet leaves 8x8.
    Raises InputError when a small stem is asked of a network that does not begin with an overlapping convolution.
    """
    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    name, first = leaves[0]
    convolution = isinstance(first, nn.Conv2d)
    if small and not (convolution and first.stride < first.kernel_size):
        raise InputError("no small stem: the network does not begin with an overlapping convolution")
    if convolution:
        shape = {"kernel_size": 3, "stride": 1, "padding": 1} if small else _get_shape(first)
        if small or first.in_channels != channels:
            bias = first.bias is not None
            stem = nn.Conv2d(channels, first.out_channels, bias=bias, **shape)
            nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as torchvision (He et al. 2015)
            network.set_submodule(name, stem)
    if small:
        for name, module in leaves[1:]:
            if isinstance(module, nn.Conv2d):
                break
            if isinstance(module, nn.MaxPool2d):
                network.set_submodule(name, nn.Identity())
                break


def _get_shape(layer: nn.Conv2d) -> dict[str, Any]:
    """Return the arguments that give another convolution the shape of this one."""
    return {"kernel_size": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
