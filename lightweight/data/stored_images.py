"""Stored images: a split of a data set that is larger than memory, read when it is used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightweight.core.errors import InputError
from lightweight.data.loader import load_in_order
from lightweight.data.shards import Shards


@dataclass(frozen=True)
class StoredImages:
    """Hold the places of images uint8 (N, C, H, W) in shards; indexing reads the images themselves."""

    shards: Shards
    places: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return (N, C, H, W)."""
        return (len(self), *self.shards.shape)

    def __getitem__(self, key: Tensor | slice) -> Tensor:
        """Read images at indices (n,) or in a slice, in their order. Raises InputError for one that was altered."""
        return torch.from_numpy(self.load(key)).to(self.device)

    def load(self, key: Tensor | slice) -> np.ndarray:
        """Read images as an array."""
        places = self.places[key.cpu() if isinstance(key, Tensor) else key].tolist()
        images = np.empty((len(places), *self.shards.shape), np.uint8)
        for image, place in zip(images, places, strict=True):
            image[:] = self.shards.read(place)
        return images

    def select(self, indices: Tensor) -> "StoredImages":
        """Return the images at indices (n,), without reading them."""
        return replace(self, places=self.places[indices.cpu()])

    def to(self, device: torch.device) -> "StoredImages":
        """Return the same images, which will be read to another device."""
        return replace(self, device=device)

    def read(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """Read images at the indices of each part, in order, ahead of their use and in other processes."""
        on_gpu = self.device.type == "cuda"
        for array in load_in_order(_Parts(self, parts), len(parts)):
            images = torch.from_numpy(array)
            yield images.pin_memory().to(self.device, non_blocking=True) if on_gpu else images


@dataclass(frozen=True)
class _Parts(Dataset[np.ndarray | InputError]):
    """Read the images of one part by its number, for a DataLoader."""

    images: StoredImages
    parts: Sequence[Tensor]

    def __getitem__(self, number: int) -> np.ndarray | InputError:
        try:
            return self.images.load(self.parts[number])
        except InputError as error:  # which would come out of a worker as a traceback
            return error
