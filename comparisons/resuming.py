"""What checkpoints cost: training with them against training without, on the embedded data set.

    python -m comparisons.resuming [PAIRS]

The two take turns in one process, on the same threads and from the same initial weights. Prints seconds, the ratio
pair by pair as median and range, and what a checkpoint holds and takes.
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import torch

from comparisons.training import PREPARE, SEED, THREADS, TRAIN
from lightweight.checkpointing.checkpointer import STATE, Checkpointer, resumable
from lightweight.core.process import run_stage
from lightweight.dataset import Dataset
from lightweight.networks.factory import build
from lightweight.preparation.prepare import read_dataset
from lightweight.reporting.table import markdown
from lightweight.training.loop import train
from lightweight.training.optimizer import make_schedule

CASES = (("convnet", 8), ("cnn", 20))  # network, epochs


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(THREADS)
    dataset, _ = read_dataset(PREPARE.model_copy(update={"dataset": "digits"}), Path(), Path(), SEED)
    table = [["network", "s/epoch", "checkpoint (MB)", "to write (s)", "with / without", "range"]]
    for network, epochs in CASES:
        once(network, dataset, 1, Checkpointer())  # what is imported and allocated on the way
        rows = [pair(network, dataset, epochs) for _ in range(pairs)]
        plain, ratio, size, cost = (median(column) for column in zip(*rows, strict=True))
        ratios = sorted(row[1] for row in rows)
        cells = [f"{plain / epochs:.2f}", f"{size / 1e6:.1f}", f"{cost:.2f}", f"{ratio:.3f}"]
        table.append([network, *cells, f"{ratios[0]:.3f} to {ratios[-1]:.3f}"])
    print(markdown(table))


def pair(network: str, dataset: Dataset, epochs: int) -> tuple[float, float, int, float]:
    """Seconds without checkpoints, the ratio of those with, bytes of a checkpoint, seconds to write one."""
    Path("work").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="work") as folder:  # on the disk where the project is
        with resumable(Path(folder), "train", {"epochs": epochs}, [], Path(__file__), print) as checkpointer:
            seconds = once(network, dataset, epochs, checkpointer)
        size, cost = (checkpointer.folder / STATE).stat().st_size, checkpointer.cost
    plain = once(network, dataset, epochs, Checkpointer())
    return plain, seconds / plain, size, cost


def once(network: str, dataset: Dataset, epochs: int, checkpointer: Checkpointer) -> float:
    torch.manual_seed(SEED)
    shape = {"channels": dataset.channels, "image_size": dataset.input_size, "num_classes": dataset.num_classes}
    model = build(network, **shape, small_stem=False)
    how = {"lr": TRAIN.lr, "schedule": partial(make_schedule, "constant", TRAIN, epochs), "checkpointer": checkpointer}
    start = time.perf_counter()
    for _ in train(model, dataset, TRAIN, range(1, epochs + 1), SEED, **how):
        pass
    return time.perf_counter() - start


if __name__ == "__main__":
    run_stage(main)
