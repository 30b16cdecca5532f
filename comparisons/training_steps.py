"""The processes of a setup of comparisons.processes: each trains an epoch of synthetic images when its turn comes."""

import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset import Dataset, Split
from lightweight.execution.determinism import configure_torch
from lightweight.execution.ranks import rank
from lightweight.networks.model_file import new_model
from lightweight.training.optimizer import make_schedule
from lightweight.training.params import TrainingSettings, TrainParams
from lightweight.training.run import TrainingRun

SHAPES = {"resnet20": (3, 32, 32), "cnn": (1, 28, 28), "tiny": (1, 28, 28)}
CLASSES = tuple("0123456789")
TURNS = 10_000  # more than there will be


def serve(params: Path, steps: int, connections: list[Connection]) -> TrainingRun:
    """Train an epoch of so many steps for each True that this process receives, until False.

    The answer is milliseconds per step, or whatever error ends the process. Returns what was trained.
    """
    given = load_params(params, **GENERAL, train=TrainParams)
    configure_torch(given)
    data = synthetic_images(given.train.network, steps * given.train.batch_size)
    model = new_model(given.train.network, given.train.small_stem, data).model
    schedule = partial(make_schedule, given.train.schedule, given.train, TURNS)
    run = TrainingRun(model, data, TrainingSettings(given.train, given.train.lr, schedule), range(1, TURNS + 1))
    connection = connections[rank()]
    while connection.recv():
        start = time.perf_counter()
        run.train_epoch(run.epoch, Checkpointer(), lambda done: None)
        connection.send(1000 * (time.perf_counter() - start) / run.steps)
        run.epoch, run.step = run.epoch + 1, 0
    return run


def synthetic_images(network: str, number: int) -> Dataset:
    """Make images of noise of the size that a network takes, with random labels; they are always the same."""
    generator = torch.Generator().manual_seed(0)
    channels, *sides = SHAPES[network]
    images = torch.randint(0, 256, (number, channels, *sides), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.randint(0, len(CLASSES), (number,), generator=generator))
    half = torch.full((channels,), 0.5)
    return Dataset(split, split, split, half, half, CLASSES, sides[0])
