"""The cost of checkpoints: training with them against training without them, on the embedded data set.

    python -m comparisons.resuming [PAIRS]

The two take turns in one process, on the same threads and from the same initial weights. Prints seconds, the ratio
pair by pair as median and range, and what a checkpoint holds and takes.
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from comparisons.preparing import read_whole
from comparisons.training import PREPARE, SEED, THREADS, TRAIN
from lightweight.checkpointing.checkpointer import STATE, Checkpointer
from lightweight.checkpointing.session import Session, resumable
from lightweight.data.dataset import Dataset
from lightweight.execution.process import run_stage
from lightweight.networks.factory import build
from lightweight.reporting.table import markdown
from lightweight.training.loop import train
from lightweight.training.optimizer import make_schedule
from lightweight.training.params import TrainingSettings

CASES = (("convnet", 8), ("cnn", 20))  # network, epochs


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(THREADS)
    dataset = read_whole(PREPARE.model_copy(update={"dataset": "digits"}), Path(), SEED)
    print(markdown(pd.DataFrame([compare(network, dataset, epochs, pairs) for network, epochs in CASES])))


def compare(network: str, dataset: Dataset, epochs: int, pairs: int) -> dict[str, str]:
    """Train the network with and without checkpoints so many times; returns a row of the table."""
    time_training(network, dataset, 1, Checkpointer())  # which imports and allocates what the first run would pay for
    figures = pd.DataFrame([measure_pair(network, dataset, epochs) for _ in range(pairs)])
    middle, ratios = figures.median(), figures["with / without"]
    return {
        "network": network,
        "s/epoch": f"{middle['seconds'] / epochs:.2f}",
        "checkpoint (MB)": f"{middle['bytes'] / 1e6:.1f}",
        "to write (s)": f"{middle['seconds to write']:.2f}",
        "with / without": f"{middle['with / without']:.3f}",
        "range": f"{ratios.min():.3f} to {ratios.max():.3f}",
    }


def measure_pair(network: str, dataset: Dataset, epochs: int) -> dict[str, float]:
    """Train once with checkpoints and once without; returns seconds, their ratio, size and time of a checkpoint."""
    Path("work").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="work") as folder:  # on the disk where the project is
        with resumable(Path(folder), "train", {"epochs": epochs}, [], Path(__file__), log=print) as checkpointer:
            seconds = time_training(network, dataset, epochs, checkpointer)
        assert checkpointer.folder  # of which only a Checkpointer that keeps nothing has none
        size, cost = (checkpointer.folder / STATE).stat().st_size, checkpointer.cost
    plain = time_training(network, dataset, epochs, Checkpointer())
    return {"seconds": plain, "with / without": seconds / plain, "bytes": size, "seconds to write": cost}


def time_training(network: str, dataset: Dataset, epochs: int, checkpointer: Checkpointer) -> float:
    """Train a new network and return the seconds that the epochs took."""
    torch.manual_seed(SEED)
    model = build(network, dataset.channels, dataset.input_size, dataset.num_classes, small_stem=False)
    session = Session(dataset, SEED, checkpointer=checkpointer)
    settings = TrainingSettings(TRAIN, TRAIN.lr, partial(make_schedule, "constant", TRAIN, epochs))
    start = time.perf_counter()
    for _ in train(model, session, settings, range(1, epochs + 1)):
        pass
    return time.perf_counter() - start


if __name__ == "__main__":
    run_stage(main)
