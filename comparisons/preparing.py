"""Data sets of comparisons: small ones, in memory."""

from pathlib import Path
from tempfile import TemporaryDirectory

from lightweight.data.dataset import Dataset
from lightweight.preparation.params import PrepareParams
from lightweight.preparation.prepare import open_source, read_dataset


def read_whole(params: PrepareParams, raw: Path, seed: int) -> Dataset:
    """Read a data set below the size from which it would be stored in shards."""
    with TemporaryDirectory() as folder:
        return read_dataset(params, open_source(params, raw, Path()), seed, Path(folder))
