"""Small data sets in shards, for tests."""

from pathlib import Path
from unittest.mock import patch

import numpy as np

from lightweight.data.dataset import Dataset
from lightweight.data.image_codec import Storage
from lightweight.preparation import reading
from lightweight.preparation.assembly import write_dataset
from lightweight.preparation.packing import Limits
from lightweight.preparation.params import PrepareParams
from lightweight.preparation.prepare import read_dataset
from lightweight.preparation.source import ArraySource

COLOURS = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)
PARAMS = PrepareParams(
    dataset="cifar10", path=None, image_size=12, resize="fit", input_size=None, channels=3, normalization="data",
    storage="pixels", val_fraction=0.2, test_fraction=0.2,
)  # fmt: skip


def colour_source(copies: int = 1) -> ArraySource:
    """40 images of noise in two classes, so many times."""
    images = np.concatenate([COLOURS] * copies)
    return ArraySource({"train": (images, np.arange(len(images)) % 2)}, ["even", "odd"], 12, 3)


def store(folder: Path, storage: Storage, shard_bytes: int, copies: int = 1) -> tuple[Path, Dataset]:
    """Write the images to `prepared.safetensors` in shards of a few images, and return the same data set in memory."""
    few = Limits(one_file_bytes=0, shard_bytes=shard_bytes)
    params, source = PARAMS.model_copy(update={"storage": storage}), colour_source(copies)
    path, (work, whole) = folder / "prepared.safetensors", (folder / "work", folder / "whole")
    for new in (work, whole):
        new.mkdir(parents=True)
    with patch.object(reading, "CHUNK_BYTES", 3 * COLOURS[0].size):
        write_dataset(path, read_dataset(params, source, 0, work, limits=few))
    return path, read_dataset(PARAMS, source, 0, whole)
