"""Trying out what a run will need before it begins: its images, network and weights, its memory and disk."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from lightweight.core.errors import bad_param
from lightweight.core.machine import total_memory
from lightweight.data.dataset import Dataset, Split
from lightweight.networks.factory import build_on_meta
from lightweight.preparation.params import PrepareParams
from lightweight.preparation.prepare import expect
from lightweight.preparation.requirements import PROCESS_BYTES, format_size
from lightweight.training.freezing import freeze
from lightweight.training.loss import load_teacher
from lightweight.training.original import new_original
from lightweight.training.params import TrainParams

MODEL_FILES = 5  # beside the snapshots: original, averaged, pruned, recalibrated, optimized
TRAINING_BYTES = 100_000_000  # of memory that training takes with the smallest network, beside those of any process
OPTIMIZER_STATES = {"sgd": 1, "adam": 2, "adamw": 2}  # numbers that an optimizer keeps of each weight


def look_ahead(prepare: PrepareParams, train: TrainParams, root: Path, folders: Iterable[Path]) -> list[str]:
    """Try out the images, the network and its files, and describe them and what they will take in lines.

    Paths in the sections are relative to `root`; `folders` hold the files that a run replaces. Raises InputError for a
    folder without images in classes, a network or files that do not fit, and a machine that is too small.
    """
    images, classes = expect(prepare, root)
    data = _make_empty(prepare, classes)
    network = _try_network(train, data, root)
    memory = _estimate_memory(network, train, count_activations(network, data.blank(2)))
    snapshots = train.snapshots or train.epochs
    disk = images.disk + _count_bytes(network.state_dict().values()) * (snapshots + MODEL_FILES)
    old = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(Path.cwd()).free + old
    if disk > free:
        rule = f"the files of a run take {format_size(disk)}, {format_size(free)} of disk are free"
        raise bad_param("train.snapshots", train.snapshots, rule)
    shape, parameters = "x".join(map(str, data.blank(1).shape[1:])), sum(map(Tensor.numel, network.parameters()))
    return [
        f"check  {images.describe()}; {len(classes)} classes",
        f"check  {train.network} of {parameters:,} parameters gives {len(classes)} logits for an image of {shape}",
        f"check  Training takes at least {format_size(memory)} of {format_size(_memory_here())} of memory; "
        f"all files take {format_size(disk)} of {format_size(free)} of disk, and DVC's cache as much again",
    ]


def _make_empty(params: PrepareParams, classes: tuple[str, ...]) -> Dataset:
    """Make the data set of section `prepare` without its images."""
    images = torch.empty(0, params.channels, params.image_size, params.image_size, dtype=torch.uint8)
    split, ones = Split(images, torch.empty(0, dtype=torch.int64)), torch.ones(params.channels)
    return Dataset(split, split, split, ones, ones, classes, params.input_size or params.image_size)


def _try_network(params: TrainParams, data: Dataset, root: Path) -> nn.Module:
    """Make the network of section `train` as training will, with its weights; try the teacher, too.

    Raises InputError when one of them does not fit the data, or the weights alone are too large for this machine.
    """
    shape = {"channels": data.channels, "image_size": data.input_size, "num_classes": data.num_classes}
    planned = build_on_meta(params.network, **shape, small_stem=params.small_stem)
    if planned is not None:  # before memory is taken for it
        freeze(planned, params.freeze)
        _estimate_memory(planned, params, activations=0)
    network = new_original(params, data, root, lambda line: None).model
    load_teacher(params, root, data)
    freeze(network, params.freeze)
    return network


def _estimate_memory(network: nn.Module, params: TrainParams, activations: int) -> int:
    """Estimate the bytes of memory that training takes, rather too few, by those of the activations of an image.

    Raises InputError if this machine has less.
    """
    trained = _count_bytes(parameter for parameter in network.parameters() if parameter.requires_grad)
    at_once = -(-params.batch_size // params.shards) if params.exact else params.batch_size
    state = _count_bytes(network.state_dict().values()) * (2 if params.ema else 1)
    memory = PROCESS_BYTES + state
    if params.epochs:
        state += trained * OPTIMIZER_STATES[params.optimizer]
        gradients = trained + at_once * activations // (1 if params.precision == "fp32" else 2)
        memory = PROCESS_BYTES + TRAINING_BYTES + gradients + 3 * state  # of which a checkpoint makes two copies
    there = _memory_here()
    if memory > there:
        key, value = ("batch_size", params.batch_size) if activations else ("network", params.network)
        rule = f"training takes at least {format_size(memory)} of memory, this machine has {format_size(there)}"
        raise bad_param(f"train.{key}", value, rule)
    return memory


def count_activations(network: nn.Module, images: Tensor) -> int:
    """Count the bytes that an image leaves for the gradient in a step of training; 0 if the network fails to train."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with suppress(Exception), saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(images)
    for tensor in network.state_dict().values():
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // len(images)


def _count_bytes(tensors: Iterable[Tensor]) -> int:
    """Count the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _memory_here() -> int:
    """Return the bytes of memory of the GPU if there is one, else of this machine."""
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else total_memory()
