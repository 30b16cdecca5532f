"""The data set that all stages read: three splits of uint8 images; batches are normalised as whole tensors.

The images of a split are one tensor, or `StoredImages` that are read when they are used. Both are indexed alike.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lightweight.core.errors import InputError
from lightweight.data.resizing import FIT, Resizing
from lightweight.data.stored_images import StoredImages

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Hold `images` uint8 (N, C, H, W) and `labels` int64 (N,)."""

    images: Tensor | StoredImages
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Split":
        """Return the images and labels at the indices, in their order; stored images are not read."""
        images = self.images.select(indices) if isinstance(self.images, StoredImages) else self.images[indices]
        return Split(images, self.labels[indices])

    def read(self, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images and labels at the indices of each part (n,), in order; stored images are read ahead."""
        images, parts = self.images, [part.to(self.labels.device) for part in parts]
        batches = images.read(parts) if isinstance(images, StoredImages) else (images[part] for part in parts)
        for part, batch in zip(parts, batches, strict=True):
            yield batch, self.labels[part]

    def to(self, device: torch.device) -> "Split":
        """Return the split on another device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """Hold the train, val and test splits, the class names, the normalisation and the input size of the network.

    `mean` and `std` (C,) are of pixels scaled to [0, 1]; `input_size` is the side of the images that the network takes,
    to which stored images are enlarged; `resizing` is how photographs have become stored images.
    """

    train: Split
    val: Split
    test: Split
    mean: Tensor
    std: Tensor
    classes: tuple[str, ...]
    input_size: int
    resizing: Resizing = FIT

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

    def describe(self) -> str:
        """Describe the size of the data set in a phrase."""
        shape = "x".join(map(str, self.train.images.shape[1:]))
        counts = " + ".join(str(len(split)) for split in (self.train, self.val, self.test))
        return f"{shape}  {self.num_classes} classes  {counts} images"

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

    def batches(self, split: Split, size: int, numbers: Iterable[int] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images (n, C, H, W) and labels (n,), `size` at a time, in the stored order.

        With `numbers`, yields these batches of all.
        """
        for images, labels in split.read(split_batches(split, size, numbers)):
            yield self.normalize(images), labels


def split_batches(split: Split, size: int, numbers: Iterable[int] | None = None) -> list[Tensor]:
    """List the indices of the images of every batch of `size`, or of the numbered ones."""
    wanted = range(count_batches(split, size)) if numbers is None else numbers
    return [torch.arange(number * size, min((number + 1) * size, len(split))) for number in wanted]


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
        raise InputError("The training split holds a single image: training needs two for BatchNorm")
    return steps


def resize(pixels: Tensor, size: int) -> Tensor:
    """Resize float32 (N, C, H, H) to (N, C, size, size), bilinearly; returns the same tensor where it fits already."""
    return pixels if pixels.shape[2] == size else F.interpolate(pixels, (size, size), mode="bilinear")
