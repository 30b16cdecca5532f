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
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset

from lightweight.core.process import run_stage
from lightweight.core.torchvision_compat import torchvision
from lightweight.dataset import Dataset, Split
from lightweight.networks.factory import build
from lightweight.preparation.prepare import PrepareParams, read_dataset
from lightweight.training.augmentation import AugmentParams
from lightweight.training.loop import TrainParams, train
from lightweight.training.optimizer import make_schedule

THREADS, BATCH, LR, SEED = 2, 64, 0.001, 0
PREPARE = PrepareParams(
    dataset="mnist", path=None, image_size=28, input_size=None, channels=1, normalization="data", val_fraction=0.1,
    test_fraction=0.1,
)  # fmt: skip
TRAIN = TrainParams(
    network="convnet", small_stem=False, weights=None, freeze=[], epochs=1, batch_size=BATCH, optimizer="adamw",
    momentum=0.9, lr=LR, weight_decay=0.01, decay_all=True, clip_norm=0.0, precision="fp32", schedule="constant",
    step_epochs=1, step_factor=0.1, label_smoothing=0.0, ema=0.0, teacher=None, temperature=1.0, teacher_weight=0.5,
    patience=0, snapshots=0, augment=AugmentParams(shift=0, rotate=0, scale=0, flip=False, crop=0, cutout=0),
)  # fmt: skip


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    raw = Path(sys.argv[2] if len(sys.argv) > 2 else "data/raw")
    torch.set_num_threads(THREADS)
    dataset, _ = read_dataset(PREPARE, raw, Path(), SEED)
    few = Split(dataset.val.images[:BATCH], dataset.val.labels[:BATCH])  # both sides measure training only
    ours, plain = whole_tensors(replace(dataset, val=few)), per_sample(dataset, raw)
    ratios, rows = [], []
    for pair in range(pairs):
        order = [ours, plain] if pair % 2 == 0 else [plain, ours]
        seconds = {epoch: timed(epoch) for epoch in order}
        ratios.append(seconds[plain] / seconds[ours])
        rows.append((seconds[ours], seconds[plain], ratios[-1]))
        print(f"pair {pair + 1}: {seconds[ours]:6.2f} s  against {seconds[plain]:6.2f} s  {ratios[-1]:.2f} times")
    print("\n|         | whole tensors (s) | DataLoader (s) | ratio |")
    print("| ------- | ----------------: | -------------: | ----: |")
    for name, choose in (("median", median), ("lowest", min), ("highest", max)):
        first, second, ratio = (choose(column) for column in zip(*rows, strict=True))
        print(f"| {name:<7} | {first:17.2f} | {second:14.2f} | {ratio:5.2f} |")


def timed(epoch: Callable[[nn.Module], None]) -> float:
    torch.manual_seed(SEED)
    model = build("convnet", 1, 28, 10, small_stem=False)
    start = time.perf_counter()
    epoch(model)
    return time.perf_counter() - start


def whole_tensors(dataset: Dataset) -> Callable[[nn.Module], None]:
    """What the `train` stage does."""

    def epoch(model: nn.Module) -> None:
        schedule = partial(make_schedule, "constant", TRAIN, 1)
        list(train(model, dataset, TRAIN, range(1, 2), SEED, lr=LR, schedule=schedule))

    return epoch


def per_sample(dataset: Dataset, raw: Path) -> Callable[[nn.Module], None]:
    """What tutorials do: ToTensor and Normalize for every image, collated by a DataLoader in the same process."""
    transforms = torchvision("transforms")
    mean, std = dataset.mean.tolist(), dataset.std.tolist()
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    images = torchvision("datasets").MNIST(raw, train=True, transform=steps)
    loader = DataLoader(Subset(images, range(len(dataset.train))), batch_size=BATCH, shuffle=True)

    def epoch(model: nn.Module) -> None:
        model = model.to(memory_format=torch.contiguous_format).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
        for batch, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(batch), labels).backward()
            optimizer.step()

    return epoch


if __name__ == "__main__":
    run_stage(main)
