"""Model files, from which a network is rebuilt alone: name and arguments travel with the weights, without pickle."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightweight.core.errors import InputError
from lightweight.core.module_state import load_state
from lightweight.core.tensor_file import read_tensors, write_tensors
from lightweight.data.dataset import Dataset
from lightweight.networks.factory import build, build_on_meta, check_forward
from lightweight.networks.pruned_shapes import Shapes, shrink_to


@dataclass(frozen=True)
class ModelFile:
    """Hold a model, its name and arguments for `factory.build`, and notes, such as the learning rate of a snapshot.

    `shapes` holds the shapes of the tensors that structured pruning has made narrower since.
    """

    model: nn.Module
    network: str
    arguments: dict[str, Any]
    notes: dict[str, Any] = field(default_factory=dict)
    shapes: Shapes = field(default_factory=dict)


def new_model(network: str, small_stem: bool, data: Dataset) -> ModelFile:
    """Build a network for the images and classes of `data`, initialised from torch's current random state."""
    arguments: dict[str, Any] = {
        "channels": data.channels,
        "image_size": data.input_size,
        "num_classes": data.num_classes,
        "small_stem": small_stem,
    }
    return ModelFile(build(network, **arguments), network, arguments)


def save_model(path: Path, file: ModelFile) -> None:
    """Write a model: equal weights and notes give equal bytes, on any device and in any memory format."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in file.model.state_dict().items()}
    metadata: dict[str, Any] = {"network": file.network, "arguments": file.arguments, "notes": file.notes}
    if file.shapes:
        metadata["shapes"] = file.shapes
    write_tensors(path, tensors, metadata)


def load_model(path: Path, data: Dataset | None = None) -> ModelFile:
    """Load a network with its weights, in evaluation mode, on the device of `data` or the CPU.

    Raises InputError when the file is missing, damaged, holds the weights of another network, or was made for other
    images or classes than those of `data`.
    """
    tensors, metadata = read_tensors(path)
    if not {"network", "arguments", "notes"} <= metadata.keys():
        raise InputError(f"{path}: not a model file: names no network")
    shapes = metadata.get("shapes", {})
    if not all(isinstance(part, dict) for part in (metadata["arguments"], metadata["notes"], shapes)):
        raise InputError(f"{path}: not a model file: its arguments, notes and shapes must be mappings")
    state = torch.random.get_rng_state()  # building initialises weights; loading must not use up random numbers
    try:
        planned = build_on_meta(metadata["network"], **metadata["arguments"])
        if planned is not None:  # before memory is taken for as much as the file asks
            shrink_to(planned, shapes)
            _check_tensors(path, metadata["network"], planned.state_dict(), tensors)
        model = build(metadata["network"], **metadata["arguments"])
        shrink_to(model, shapes)
    except TypeError:
        raise InputError(f"{path}: a model file of another version: built from {metadata['arguments']}") from None
    torch.random.set_rng_state(state)
    _check_tensors(path, metadata["network"], model.state_dict(), tensors)
    load_state(model, tensors)
    if shapes:
        taken = {name: metadata["arguments"][name] for name in ("channels", "image_size", "num_classes")}
        check_forward(model, metadata["network"], **taken)
    if data:
        _check_data(path, metadata["arguments"], data)
        model.to(data.mean.device)
    return ModelFile(model.eval(), metadata["network"], metadata["arguments"], metadata["notes"], shapes)


def _check_data(path: Path, arguments: dict[str, Any], data: Dataset) -> None:
    """Raise InputError unless the network takes the images and classes of `data`."""
    needed = {"channels": data.channels, "image_size": data.input_size, "num_classes": data.num_classes}
    for name, value in needed.items():
        if arguments[name] != value:
            raise InputError(f"{path}: has {name} {arguments[name]}, the data set {value}; `dvc repro` makes it anew")


def _check_tensors(path: Path, network: str, own: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> None:
    """Raise InputError unless the `given` tensors have the names, types and shapes of those of the network."""
    expected = {name: _dtype_and_shape(tensor) for name, tensor in own.items()}
    found = {name: _dtype_and_shape(tensor) for name, tensor in given.items()}
    if expected != found:
        wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        pairs = ((name, found.get(name, "absent"), expected.get(name, "absent")) for name in wrong[:3])
        detail = "; ".join(f"{name} is {actual}, must be {needed}" for name, actual, needed in pairs)
        raise InputError(f"{path}: the weights do not fit the network {network!r}: {detail}")


def _dtype_and_shape(tensor: torch.Tensor) -> str:
    """Describe a tensor, as in `float32 (16, 1, 3, 3)`."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
