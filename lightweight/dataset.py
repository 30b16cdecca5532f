"""A data set is one file of whole uint8 tensors; batches are slices of them, normalised as whole tensors."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lightweight.core.errors import InputError
from lightweight.core.tensor_file import read_tensors, write_tensors

LARGEST = 1024  # pixels of a side


@dataclass(frozen=True)
class Split:
    """`images` uint8 (N, C, H, W), `labels` int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Split":
        return Split(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """Three splits, `mean` and `std` (C,) of pixels scaled to [0, 1], the class names, and the network's image size."""

    train: Split
    val: Split
    test: Split
    mean: Tensor
    std: Tensor
    classes: tuple[str, ...]
    input_size: int

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        return self.train.images.shape[2]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def to(self, device: torch.device) -> "Dataset":
        moved = {name: getattr(self, name).to(device) for name in ("train", "val", "test", "mean", "std")}
        return replace(self, **moved)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) to float32 of the network's size, zero mean and unit variance, channels_last."""
        mean, std = (value.view(1, -1, 1, 1) for value in (self.mean, self.std))
        pixels = resize(images.float(), self.input_size)
        return pixels.div_(255).sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)

    def blank(self, number: int) -> Tensor:
        """As many images of the network's size, all zero: (number, C, H, W)."""
        return torch.zeros(number, self.channels, self.input_size, self.input_size, device=self.mean.device)

    def batches(self, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images (n, C, H, W) and labels (n,), `size` at a time, as stored."""
        for start in range(0, len(split), size):
            part = slice(start, start + size)
            yield self.normalize(split.images[part]), split.labels[part]


def random_indices(total: int, count: int, seed: int) -> Tensor:
    """Draw min(count, total) distinct indices below `total`, int64 on the CPU, in a random order that `seed` fixes."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count]


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """A last batch of a single image is left out: it has no variance for BatchNorm. Raises InputError."""
    full, rest = divmod(len(split), batch_size)
    if not full + (rest > 1):
        raise InputError("the training split holds a single image: training needs two for BatchNorm")
    return full + (rest > 1)


def resize(pixels: Tensor, size: int) -> Tensor:
    """float32 (N, C, H, H) to (N, C, size, size), bilinearly; the same tensor where it fits already."""
    return pixels if pixels.shape[2] == size else F.interpolate(pixels, (size, size), mode="bilinear")


def save_dataset(path: Path, dataset: Dataset) -> None:
    """Equal data sets give equal bytes."""
    tensors = {"mean": dataset.mean, "std": dataset.std}
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        tensors |= {f"{name}.images": split.images, f"{name}.labels": split.labels}
    metadata = {"classes": dataset.classes, "input_size": dataset.input_size}
    write_tensors(path, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata)


def load_dataset(path: Path) -> Dataset:
    """Raises InputError when the file is missing, damaged or not a data set."""
    tensors, header = read_tensors(path)
    try:
        splits = {
            name: Split(tensors[f"{name}.images"], tensors[f"{name}.labels"]) for name in ("train", "val", "test")
        }
        moments = {name: tensors[name] for name in ("mean", "std")}
        classes, input_size = header["classes"], header["input_size"]
    except KeyError as error:
        raise InputError(f"{path}: not a prepared data set: {error.args[0]} is missing") from None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"{path}: not a prepared data set: classes must be a list of names")
    shape = splits["train"].images.shape[1:]
    if type(input_size) is not int or len(shape) != 3 or not 1 <= shape[1] == shape[2] <= input_size <= LARGEST:
        rule = f"input_size must be an integer from that of the images, {tuple(shape)}, to {LARGEST}"
        raise InputError(f"{path}: not a prepared data set: {rule}")
    for name, split in splits.items():
        images, labels = split.images, split.labels
        if images.dtype != torch.uint8 or images.shape[1:] != shape or not len(images):
            raise InputError(
                f"{path}: not a prepared data set: {name}.images must be uint8 (N, {', '.join(map(str, shape))})"
            )
        if (
            labels.dtype != torch.int64
            or labels.shape != images.shape[:1]
            or not 0 <= labels.min() <= labels.max() < len(classes)
        ):
            raise InputError(
                f"{path}: not a prepared data set: {name}.labels must be int64 ({len(images)},) below {len(classes)}"
            )
    for name, values in moments.items():
        if values.dtype != torch.float32 or values.shape != shape[:1]:
            raise InputError(f"{path}: not a prepared data set: {name} must be float32 ({shape[0]},)")
    return Dataset(**splits, **moments, classes=tuple(classes), input_size=input_size)
