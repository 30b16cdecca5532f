"""The file of a data set: one that holds all, or its labels and the checksum of the index of its shards.

The shards of `NAME.safetensors` lie in the folder `NAME`. Every image has a place in them, and each split lists places.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightweight.core.errors import InputError
from lightweight.core.tensor_file import map_tensors, write_tensors
from lightweight.data.dataset import SPLITS, Dataset, Split
from lightweight.data.resizing import parse_resizing
from lightweight.data.shards import open_shards
from lightweight.data.stored_images import StoredImages

MAX_INPUT_SIZE = 1024  # pixels of a side


def save_dataset(path: Path, dataset: Dataset) -> None:
    """Write a data set whose images are tensors to one file: equal data sets give equal bytes."""
    tensors = {"mean": dataset.mean, "std": dataset.std}
    for name in SPLITS:
        split = getattr(dataset, name)
        tensors |= {f"{name}.images": split.images, f"{name}.labels": split.labels}
    _write(path, dataset, tensors, {})


def save_stored_dataset(path: Path, dataset: Dataset, index: str) -> None:
    """Write a data set whose images are stored in shards, and the checksum of the index of these."""
    tensors = {"mean": dataset.mean, "std": dataset.std}
    for name in SPLITS:
        images, labels = getattr(dataset, name).images, getattr(dataset, name).labels
        tensors |= {f"{name}.places": images.places, f"{name}.labels": labels}
        tensors |= {"sizes": torch.from_numpy(images.shards.sizes)}
        tensors |= {"checksums": torch.from_numpy(images.shards.checksums)}
    _write(path, dataset, tensors, {"index": index})


def _write(path: Path, dataset: Dataset, tensors: dict[str, Tensor], more: dict[str, Any]) -> None:
    metadata = {"classes": dataset.classes, "input_size": dataset.input_size} | dataset.resizing.metadata() | more
    write_tensors(path, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata)


def load_dataset(path: Path) -> Dataset:
    """Load what one of the functions above wrote. Nothing of the images is in memory before it is used.

    Raises InputError when the file or one of its shards is missing, damaged, of another data set, or not one.
    """
    tensors, metadata = map_tensors(path)
    try:
        splits = _stored_splits(path, tensors, metadata["index"]) if "index" in metadata else _whole_splits(tensors)
        mean, std = tensors["mean"], tensors["std"]
        classes, input_size = metadata["classes"], metadata["input_size"]
    except KeyError as error:
        raise InputError(f"{path}: not a prepared data set: {error.args[0]} is missing") from None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"{path}: not a prepared data set: classes must be a list of names")
    train, val, test = splits
    dataset = Dataset(train, val, test, mean, std, tuple(classes), input_size)
    try:
        _check_tensors(dataset)
        dataset = replace(dataset, resizing=parse_resizing(metadata, dataset.image_size))
    except ValueError as error:
        raise InputError(f"{path}: not a prepared data set: {error}") from None
    return dataset


def _whole_splits(tensors: dict[str, Tensor]) -> list[Split]:
    return [Split(tensors[f"{name}.images"], tensors[f"{name}.labels"]) for name in SPLITS]


def _stored_splits(path: Path, tensors: dict[str, Tensor], index: str) -> list[Split]:
    """Open the shards of a data set, and find its splits in them. Raises InputError."""
    shards = open_shards(path.with_suffix(""), index, tensors["sizes"].numpy(), tensors["checksums"].numpy())
    cpu = torch.device("cpu")
    return [Split(StoredImages(shards, tensors[f"{name}.places"], cpu), tensors[f"{name}.labels"]) for name in SPLITS]


def _check_tensors(dataset: Dataset) -> None:
    """Raise ValueError with the rule that types, shapes, labels or the input size of a data set break."""
    shape, size, number = dataset.train.images.shape[1:], dataset.input_size, dataset.num_classes
    if type(size) is not int or len(shape) != 3 or not 1 <= shape[1] == shape[2] <= size <= MAX_INPUT_SIZE:
        rule = f"must be an integer from that of the images, {tuple(shape)}, to {MAX_INPUT_SIZE}"
        raise ValueError(f"input_size {rule}")
    for name in SPLITS:
        images, labels = getattr(dataset, name).images, getattr(dataset, name).labels
        if isinstance(images, StoredImages):
            places, number_stored = images.places, len(images.shards.sizes)
            if places.dtype != torch.int64 or not len(places) or not 0 <= places.min() <= places.max() < number_stored:
                raise ValueError(f"{name}.places must be int64 below {number_stored}")
        elif images.dtype != torch.uint8 or images.shape[1:] != shape or not len(images):
            raise ValueError(f"{name}.images must be uint8 (N, {', '.join(map(str, shape))})")
        fits = labels.dtype == torch.int64 and len(labels) == len(images) and labels.ndim == 1
        if not fits or not 0 <= labels.min() <= labels.max() < number:
            raise ValueError(f"{name}.labels must be int64 ({len(images)},) below {number}")
    for name in ("mean", "std"):
        values = getattr(dataset, name)
        if values.dtype != torch.float32 or values.shape != shape[:1]:
            raise ValueError(f"{name} must be float32 ({shape[0]},)")
