"""Assembly of a data set from packed images: its splits, its normalisation, and the files that all stages read."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lightweight.data.dataset import SPLITS, Dataset, Split
from lightweight.data.dataset_file import save_dataset, save_stored_dataset
from lightweight.data.normalization import IMAGENET
from lightweight.data.shards import Index, Shard, Shards, write_index
from lightweight.data.stored_images import StoredImages
from lightweight.preparation.packing import Packed
from lightweight.preparation.params import PrepareParams
from lightweight.preparation.source import Source
from lightweight.preparation.splitting import split_places


def assemble(
    params: PrepareParams, source: Source, packed: Packed, shards: list[Shard], folder: Path, seed: int
) -> Dataset:
    """Make the data set of images that are packed in the shards of a folder.

    Raises InputError for a class of which no image could be read, or which is too small to be split.
    """
    numbers = packed.column("numbers")
    source.check_readable(numbers)
    labels = source.labels[numbers]
    bounds = {name: np.searchsorted(numbers, (part.start, part.stop)) for name, part in source.splits.items()}
    found = {name: np.arange(first, last) for name, (first, last) in bounds.items()}
    shares = {"test_fraction": params.test_fraction, "val_fraction": params.val_fraction}
    places = split_places(found, labels, source.classes, shares, seed)
    stored = Shards(
        folder, tuple(shards), params.storage, source.shape, packed.column("sizes"), packed.column("checksums")
    )
    splits = []
    for name in SPLITS:
        images = StoredImages(stored, torch.from_numpy(places[name]), torch.device("cpu"))
        splits.append(Split(images, torch.from_numpy(labels[places[name]])))
    match params.normalization:
        case "data":
            mean, std = _moments(packed.column("sums")[places["train"]].sum(0), len(places["train"]), source.shape)
        case "imagenet":
            mean, std = IMAGENET.tensors()
        case given:
            mean, std = given.tensors()
    (train, val, test), input_size = splits, params.input_size or params.image_size
    return Dataset(train, val, test, mean, std, source.classes, input_size, params.resizing)


def load_images(dataset: Dataset) -> Dataset:
    """Return a data set with all of its images in memory."""
    train, val, test = (Split(split.images[:], split.labels) for split in (dataset.train, dataset.val, dataset.test))
    return replace(dataset, train=train, val=val, test=test)


def _moments(sums: np.ndarray, images: int, shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute mean and std (C,) of pixels scaled to [0, 1] from their exact sums and sums of squares (2 C,).

    A constant channel gets std 1.
    """
    channels, height, width = shape
    pixels, whole = images * height * width, [int(value) for value in sums]
    means = [total / (255 * pixels) for total in whole[:channels]]
    variances = [
        (squares * pixels - total**2) / (255 * pixels) ** 2  # exact until the division
        for total, squares in zip(whole[:channels], whole[channels:], strict=True)
    ]
    stds = [variance**0.5 if variance > 0 else 1.0 for variance in variances]
    return torch.tensor(means, dtype=torch.float32), torch.tensor(stds, dtype=torch.float32)


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Write a data set to `path`, and its shards, if it has any, to the folder beside it; the file comes last."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    images = dataset.train.images
    if not isinstance(images, StoredImages):
        write_index(
            folder, Index(storage="pixels", shape=(dataset.channels, dataset.image_size, dataset.image_size), shards=[])
        )
        save_dataset(path, dataset)
        return
    shards = images.shards
    try:
        for file in shards.files:
            _link(shards.folder / file.name, folder / file.name)
    except OSError:
        for new in folder.iterdir():
            new.unlink()
        raise
    index = Index(storage=shards.storage, shape=shards.shape, shards=list(shards.files))
    save_stored_dataset(path, dataset, write_index(folder, index))


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it to another file system. Raises OSError."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f"not written: {error.strerror}", str(target)) from error
