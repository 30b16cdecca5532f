"""How the images were that published networks were evaluated with, as timm and torchvision say it."""

import importlib
import math
from collections.abc import Container
from typing import Any

from lightweight.core.errors import InputError
from lightweight.core.torchvision_compat import torchvision
from lightweight.networks.zoo import get_builder
from tools.adopt.params_file import format_value

EXAMPLES = {
    "prepare.image_size": "64",
    "prepare.resize": "{shorter_side: 72, interpolation: bilinear}",
    "prepare.channels": "3",
    "prepare.normalization": "{mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}",
}


def find_settings(network: str, weights: str, chosen: Container[str]) -> tuple[dict[str, str], str]:
    """Return what is known of the images of a network as values of section `prepare`, and a phrase that says whose.

    What is chosen is not looked up. Raises InputError for an unknown network, and for what is neither known nor chosen.
    """
    library, _, model = network.partition("/")
    if ":" in network:
        missing = [key for key in EXAMPLES if key not in chosen]
        if missing:
            given = " ".join(f"--set '{key}={EXAMPLES[key]}'" for key in missing)
            raise InputError(f"nothing says with which images {network} was trained: say it as in {given}")
        return {}, "images as --set says"
    get_builder(network)
    found, whose = _from_torchvision(model, weights) if library == "torchvision" else _from_timm(model)
    known = _settings(found, network, chosen)
    changed = ", but for what --set says" if any(key in chosen for key in known) else ""
    shown = ", ".join(f"{key.partition('.')[2]} {value}" for key, value in known.items() if key not in chosen)
    return known, f"images as for {whose}{changed}: {shown}"


def _from_torchvision(model: str, weights: str) -> tuple[dict[str, Any], str]:
    """Read the transforms of the named weights, or for a file those of the newest weights of its network."""
    known = torchvision("models").get_model_weights(model)
    entry = known[weights] if weights in known.__members__ else known.DEFAULT
    steps = entry.transforms()
    found = {
        "size": steps.crop_size[0], "shorter_side": steps.resize_size[0], "interpolation": steps.interpolation.value,
        "mean": steps.mean, "std": steps.std, "channels": 3,
    }  # fmt: skip
    return found, f"torchvision's {entry}"


def _from_timm(model: str) -> tuple[dict[str, Any], str]:
    """Read the configuration of pretrained weights. Raises InputError where timm has none."""
    timm = importlib.import_module("timm")
    config = timm.get_pretrained_cfg(model)
    if config is None:
        raise InputError(f"timm says nothing of the images of {model!r}")
    channels, size, _ = config.input_size
    found = {
        "size": size, "shorter_side": math.floor(size / config.crop_pct), "interpolation": config.interpolation,
        "mean": config.mean, "std": config.std, "channels": channels, "crop_mode": config.crop_mode,
    }  # fmt: skip
    return found, f"timm's {model}"


def _settings(found: dict[str, Any], network: str, chosen: Container[str]) -> dict[str, str]:
    """Write what was found as values of section `prepare`. Raises InputError for a way to resize that it lacks."""
    mode, interpolation = found.get("crop_mode", "center"), found["interpolation"]
    if "prepare.resize" not in chosen and (mode != "center" or interpolation not in ("bilinear", "bicubic")):
        raise InputError(
            f"{network}: its images were resized in another way (crop mode {mode}, {interpolation}); "
            "prepare.resize knows no such way, --set prepare.resize=fit crops and resizes them bilinearly"
        )
    moments = {"mean": list(found["mean"]), "std": list(found["std"])}
    values = {
        "prepare.image_size": found["size"],
        "prepare.resize": {"shorter_side": found["shorter_side"], "interpolation": interpolation},
        "prepare.channels": found["channels"],
        "prepare.normalization": moments,
    }
    return {key: format_value(value) for key, value in values.items()}
