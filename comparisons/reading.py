"""Reading images: stored ones in training, and photographs in preparing, against torchvision's ImageFolder.

    python -m comparisons.reading [FOLDER]

Reads 4,000 photographs of `comparisons.large_data`, to 224 pixels, in rounds in which all take turns, each with as many
workers as there are cores. The rival decodes, resizes and crops the same files by ImageFolder and a DataLoader, to
uint8. Writes comparisons/results/reading.csv: images per second as median of the rounds, and the ratio to the rival,
round by round, as median and range.
"""

import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pandas as pd
from torch import Tensor
from torch.utils.data import DataLoader

from comparisons.large_data import SIZE, make_folder
from comparisons.training import PREPARE
from lightweight.core.files import write_csv
from lightweight.core.machine import cpu_name
from lightweight.core.torchvision_compat import torchvision
from lightweight.data.dataset import Dataset, Split, random_indices
from lightweight.data.image_codec import Storage
from lightweight.execution.machines import usable_cores
from lightweight.execution.process import run_stage
from lightweight.preparation.image_folder import FolderSource
from lightweight.preparation.packing import Limits
from lightweight.preparation.prepare import read_dataset
from lightweight.reporting.table import markdown

TABLE = Path("comparisons/results/reading.csv")
IMAGES, BATCH, ROUNDS = 4000, 64, 3
STORAGES: tuple[Storage, ...] = ("pixels", "png", "jpeg")
RIVAL = "ImageFolder + DataLoader"


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "work/large_data").absolute()
    folder = make_folder(root / f"photographs-{IMAGES}", IMAGES)
    transforms = torchvision("transforms")
    steps = transforms.Compose([transforms.Resize(SIZE), transforms.CenterCrop(SIZE), transforms.PILToTensor()])
    files = torchvision("datasets").ImageFolder(folder, steps)
    loader = DataLoader(files, BATCH, shuffle=True, num_workers=usable_cores())
    calls: dict[str, Callable[[], int]] = {RIVAL: lambda: count(images for images, _ in loader)}
    with TemporaryDirectory() as scratch:
        for storage in STORAGES:
            target = Path(scratch) / storage
            calls[f"training, {storage}"] = partial(read_training, prepare(folder, storage, target).train)
            calls[f"prepare, {storage}"] = partial(prepare_anew, folder, storage)
        rows = compare(calls)
    write_csv(TABLE, rows[0], rows)
    print(markdown(pd.read_csv(TABLE)))


def prepare(folder: Path, storage: Storage, target: Path) -> Dataset:
    """Prepare the folder in shards, which lie in `target`."""
    target.mkdir()
    params = PREPARE.model_copy(update={"storage": storage, "image_size": SIZE, "channels": 3})
    return read_dataset(params, FolderSource(folder, SIZE, 3), 0, target, limits=Limits(one_file_bytes=0))


def prepare_anew(folder: Path, storage: Storage) -> int:
    """Prepare the folder, and return the number of images."""
    with TemporaryDirectory() as scratch:
        dataset = prepare(folder, storage, Path(scratch) / "new")
    return len(dataset.train) + len(dataset.val) + len(dataset.test)


def read_training(split: Split) -> int:
    """Read all images of a split in random order, in batches, as training does, and return their number."""
    return count(images for images, _ in split.read(random_indices(len(split), len(split), 0).split(BATCH)))


def count(batches: Iterable[Tensor]) -> int:
    """Count the images of all batches."""
    return sum(len(batch) for batch in batches)


def compare(calls: dict[str, Callable[[], int]]) -> list[dict[str, object]]:
    """Time the calls in turns, and return a row for each."""
    speeds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            images = call()
            speeds[name].append(images / (time.perf_counter() - start))
    rows: list[dict[str, object]] = []
    for name, found in speeds.items():
        ratios = sorted(mine / rival for mine, rival in zip(found, speeds[RIVAL], strict=True))
        times = {"times_the_rival": round(median(ratios), 2), "from": round(ratios[0], 2), "to": round(ratios[-1], 2)}
        row = {"what": name, "images_per_second": round(median(found))} | times
        rows.append(row | {"workers": usable_cores(), "cpu": cpu_name()})
    return rows


if __name__ == "__main__":
    run_stage(main)
