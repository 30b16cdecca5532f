"""One MNIST epoch of `convnet` at batch 64: whole-tensor batches against a DataLoader with per-sample transforms.

    python -m comparisons.training [PAIRS] [RAW_FOLDER]

The two take turns, in one process and on the same threads, from the same initial weights, with AdamW and without
augmentation. Prints seconds per epoch and the ratio pair by pair.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset

from comparisons.preparing import read_whole
from lightweight.checkpointing.session import Session
from lightweight.core.memory_format import to_memory_format
from lightweight.core.torchvision_compat import torchvision
from lightweight.data.augmentation import OFF
from lightweight.data.dataset import Dataset, Split
from lightweight.execution.process import run_stage
from lightweight.networks.factory import build
from lightweight.preparation.params import PrepareParams
from lightweight.reporting.table import markdown
from lightweight.training.loop import train
from lightweight.training.optimizer import make_schedule
from lightweight.training.params import TrainingSettings, TrainParams

THREADS, BATCH, LR, SEED = 2, 64, 0.001, 0
PREPARE = PrepareParams(
    dataset="mnist", path=None, image_size=28, resize="fit", input_size=None, channels=1, normalization="data",
    storage="pixels", val_fraction=0.1, test_fraction=0.1,
)  # fmt: skip
TRAIN = TrainParams(
    network="convnet", small_stem=False, weights=None, freeze=[], epochs=1, batch_size=BATCH, shards=1, exact=True,
    optimizer="adamw", momentum=0.9, lr=LR, weight_decay=0.01, decay_all=True, clip_norm=0.0, precision="fp32",
    schedule="constant", step_epochs=1, step_factor=0.1, label_smoothing=0.0, ema=0.0, teacher=None, temperature=1.0,
    teacher_weight=0.5, patience=0, snapshots=0,
    augment=OFF,
)  # fmt: skip


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    raw = Path(sys.argv[2] if len(sys.argv) > 2 else "data/raw")
    torch.set_num_threads(THREADS)
    dataset = read_whole(PREPARE, raw, SEED)
    few = Split(dataset.val.images[:BATCH], dataset.val.labels[:BATCH])  # both sides measure training only
    ours, plain = whole_tensors(replace(dataset, val=few)), per_sample(dataset, raw)
    rows = []
    for pair in range(pairs):
        order = [ours, plain] if pair % 2 == 0 else [plain, ours]
        seconds = {epoch: time_epoch(epoch) for epoch in order}
        rows.append((seconds[ours], seconds[plain], seconds[plain] / seconds[ours]))
        print("pair {}: {:6.2f} s  against {:6.2f} s  {:.2f} times".format(pair + 1, *rows[-1]))
    figures = pd.DataFrame(rows, columns=["whole tensors (s)", "DataLoader (s)", "ratio"])
    summary = figures.agg(["median", "min", "max"]).map("{:.2f}".format).rename_axis("").reset_index()
    print(f"\n{markdown(summary)}")


def time_epoch(epoch: Callable[[nn.Module], None]) -> float:
    """Train a new network for an epoch and return the seconds."""
    torch.manual_seed(SEED)
    model = build("convnet", 1, 28, 10, small_stem=False)
    start = time.perf_counter()
    epoch(model)
    return time.perf_counter() - start


def whole_tensors(dataset: Dataset) -> Callable[[nn.Module], None]:
    """Return an epoch of training as in the stage `train`, on batches that are slices of whole tensors."""

    def epoch(model: nn.Module) -> None:
        settings = TrainingSettings(TRAIN, LR, partial(make_schedule, "constant", TRAIN, 1))
        list(train(model, Session(dataset, SEED), settings, range(1, 2)))

    return epoch


def per_sample(dataset: Dataset, raw: Path) -> Callable[[nn.Module], None]:
    """Return an epoch as in tutorials: ToTensor and Normalize by image, collated by a DataLoader in this process."""
    transforms = torchvision("transforms")
    mean, std = dataset.mean.tolist(), dataset.std.tolist()
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    images = torchvision("datasets").MNIST(raw, train=True, transform=steps)
    loader = DataLoader(Subset(images, range(len(dataset.train))), batch_size=BATCH, shuffle=True)

    def epoch(model: nn.Module) -> None:
        model = to_memory_format(model, torch.contiguous_format).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
        for batch, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(batch), labels).backward()
            optimizer.step()

    return epoch


if __name__ == "__main__":
    run_stage(main)
