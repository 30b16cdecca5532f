"""Data sets as one file of whole uint8 tensors; batches are slices of these, normalised as whole tensors."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lightweight.core.errors import InputError
from lightweight.core.tensor_file import read_tensors, write_tensors

MAX_INPUT_SIZE = 1024  # pixels of a side
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Hold `images` uint8 (N, C, H, W) and `labels` int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Split":
        """Return the images and labels at the indices, in their order."""
        return Split(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> "Split":
        """Return the split on another device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """Hold the train, val and test splits, the class names, the normalisation and the input size of the network.

    `mean` and `std` (C,) are of pixels scaled to [0, 1]; `input_size` is the side of the images that the network takes,
    to which stored images are enlarged.
    """

    train: Split
    val: Split
    test: Split
    mean: Tensor
    std: Tensor
    classes: tuple[str, ...]
    input_size: int

    @property
    def channels(self) -> int:
        """Return the number of channels of the images."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Return the side of the stored images in pixels."""
        return self.train.images.shape[2]

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return len(self.classes)

    def to(self, device: torch.device) -> "Dataset":
        """Return the data set on another device."""
        moved = {name: getattr(self, name).to(device) for name in (*SPLITS, "mean", "std")}
        return replace(self, **moved)

    def normalize(self, images: Tensor) -> Tensor:
        """Convert uint8 (N, C, H, W) to float32 of the network's size, zero mean and unit variance, channels_last."""
        mean, std = (value.view(1, -1, 1, 1) for value in (self.mean, self.std))
        pixels = resize(images.float(), self.input_size)
        return pixels.div_(255).sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)

    def blank(self, number: int) -> Tensor:
        """Make images of the network's size, all zero: (number, C, H, W)."""
        return torch.zeros(number, self.channels, self.input_size, self.input_size, device=self.mean.device)

    def batches(self, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images (n, C, H, W) and labels (n,), `size` at a time, in the stored order."""
        for number in range(count_batches(split, size)):
            yield self.batch(split, number, size)

    def batch(self, split: Split, number: int, size: int) -> tuple[Tensor, Tensor]:
        """Return the normalised images (n, C, H, W) and labels (n,) of one batch of `size`, in the stored order."""
        part = slice(number * size, (number + 1) * size)
        return self.normalize(split.images[part]), split.labels[part]


def count_batches(split: Split, size: int) -> int:
    """Count the batches of `size` images, of which the last may have fewer."""
    return -(-len(split) // size)


def random_indices(total: int, count: int, seed: int) -> Tensor:
    """Draw min(count, total) distinct indices below `total`, int64 on the CPU, in a random order that `seed` fixes."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count]


def steps_per_epoch(split: Split, batch_size: int, smallest: int = 2) -> int:
    """Count the batches of an epoch, without a last one of fewer than `smallest` images.

    A single image has no variance for BatchNorm. Raises InputError when no batch is left.
    """
    full, rest = divmod(len(split), batch_size)
    steps = full + 1 if rest >= smallest else full
    if not steps:
        raise InputError("the training split holds a single image: training needs two for BatchNorm")
    return steps


def resize(pixels: Tensor, size: int) -> Tensor:
    """Resize float32 (N, C, H, H) to (N, C, size, size), bilinearly; returns the same tensor where it fits already."""
    return pixels if pixels.shape[2] == size else F.interpolate(pixels, (size, size), mode="bilinear")


def save_dataset(path: Path, dataset: Dataset) -> None:
    """Write a data set to a file: equal data sets give equal bytes."""
    tensors = {"mean": dataset.mean, "std": dataset.std}
    for name in SPLITS:
        split = getattr(dataset, name)
        tensors |= {f"{name}.images": split.images, f"{name}.labels": split.labels}
    metadata = {"classes": dataset.classes, "input_size": dataset.input_size}
    write_tensors(path, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata)


def load_dataset(path: Path) -> Dataset:
    """Load what `save_dataset` wrote. Raises InputError when the file is missing, damaged or not a data set."""
    tensors, metadata = read_tensors(path)
    try:
        train, val, test = (Split(tensors[f"{name}.images"], tensors[f"{name}.labels"]) for name in SPLITS)
        mean, std = tensors["mean"], tensors["std"]
        classes, input_size = metadata["classes"], metadata["input_size"]
    except KeyError as error:
        raise InputError(f"{path}: not a prepared data set: {error.args[0]} is missing") from None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"{path}: not a prepared data set: classes must be a list of names")
    dataset = Dataset(train, val, test, mean, std, tuple(classes), input_size)
    try:
        _check_tensors(dataset)
    except ValueError as error:
        raise InputError(f"{path}: not a prepared data set: {error}") from None
    return dataset


def _check_tensors(dataset: Dataset) -> None:
    """Raise ValueError with the rule that types, shapes, labels or the input size of a data set break."""
    shape, size, number = dataset.train.images.shape[1:], dataset.input_size, dataset.num_classes
    if type(size) is not int or len(shape) != 3 or not 1 <= shape[1] == shape[2] <= size <= MAX_INPUT_SIZE:
        rule = f"must be an integer from that of the images, {tuple(shape)}, to {MAX_INPUT_SIZE}"
        raise ValueError(f"input_size {rule}")
    for name in SPLITS:
        images, labels = getattr(dataset, name).images, getattr(dataset, name).labels
        if images.dtype != torch.uint8 or images.shape[1:] != shape or not len(images):
            raise ValueError(f"{name}.images must be uint8 (N, {', '.join(map(str, shape))})")
        fits = labels.dtype == torch.int64 and labels.shape == images.shape[:1]
        if not fits or not 0 <= labels.min() <= labels.max() < number:
            raise ValueError(f"{name}.labels must be int64 ({len(images)},) below {number}")
    for name in ("mean", "std"):
        values = getattr(dataset, name)
        if values.dtype != torch.float32 or values.shape != shape[:1]:
            raise ValueError(f"{name} must be float32 ({shape[0]},)")
