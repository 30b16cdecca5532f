"""A trial of a trained network before anything is written: does it fit the images, and how many are right?"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from lightweight.core.errors import InputError
from lightweight.data.dataset import Dataset, Split, random_indices
from lightweight.data.loader import count_workers
from lightweight.data.normalization import IMAGENET, Moments
from lightweight.networks.model_file import new_model
from lightweight.preparation.params import PrepareParams
from lightweight.preparation.prepare import open_source
from lightweight.preparation.source import Source
from lightweight.training.params import TrainParams
from lightweight.training.pretrained import load_weights, read_weights

SAMPLE, BATCH = 256, 32
SHOWN = 3  # classes at either end
START_SECONDS = 90  # of all stages together, which import PyTorch
VARIANTS = 5  # that `evaluate` scores
MODELS = 3  # that `benchmark` times


@dataclass(frozen=True)
class Trial:
    """Hold the images of a sample and the right answers, by class, and the minutes that the pipeline may take."""

    images: tuple[int, ...]
    right: tuple[int, ...]
    minutes: float

    @property
    def shares(self) -> list[Fraction]:
        """Return the share that the network was right about, of each class that is in the sample."""
        return [Fraction(right, images) for right, images in zip(self.right, self.images, strict=True) if images]


def try_out(params: SimpleNamespace, say: Callable[[str], object]) -> Trial:
    """Score the network of `params` with its weights on a sample of its images.

    Raises InputError if weights, network and images do not fit.
    """
    torch.set_num_threads(params.threads)
    source = open_source(params.prepare, Path(), Path())
    say(f"adopt  {len(source.labels):,} images; {_describe_classes(source.classes)}")
    start = time.perf_counter()
    data = _read_sample(source, params.prepare, params.seed)
    read_seconds = (time.perf_counter() - start) / len(data.test)
    network = _load_network(params.train, data)
    start = time.perf_counter()
    with torch.no_grad():
        found = [labels[network(x).argmax(1) == labels] for x, labels in data.batches(data.test, BATCH)]
    forward_seconds = (time.perf_counter() - start) / len(data.test)
    seconds = _estimate(params, source, read_seconds, forward_seconds)
    images, right = (_count(labels, source.classes) for labels in (data.test.labels, torch.cat(found)))
    return Trial(images, right, max(1, seconds / 60))


def _count(labels: torch.Tensor, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Count the labels of each class."""
    return tuple(labels.bincount(minlength=len(classes)).tolist())


def _describe_classes(classes: tuple[str, ...]) -> str:
    """Describe the order of the classes, which that of the logits must be."""
    numbered = [f"{number} = {name}" for number, name in enumerate(classes)]
    shown = numbered if len(numbered) <= 2 * SHOWN else [*numbered[:SHOWN], "...", *numbered[-SHOWN:]]
    return (
        f"{len(classes)} classes in the order of the folder names, which must be that of the logits: {', '.join(shown)}"
    )


def _read_sample(source: Source, params: PrepareParams, seed: int) -> Dataset:
    """Read random images, those of the test split if there is one, as a data set of three equal splits."""
    part = source.splits.get("test", source.splits["train"])
    images, labels = [], []
    for number in sorted((random_indices(len(part), SAMPLE, seed) + part.start).tolist()):
        for image in source.read(range(number, number + 1)):
            if image.pixels is not None:
                images.append(image.pixels)
                labels.append(int(source.labels[number]))
    if not images:
        raise InputError(f"{params.path}: none of {SAMPLE} images can be read")
    split = Split(torch.from_numpy(np.stack(images)), torch.tensor(labels))
    std, mean = torch.std_mean(split.images[:] / 255, dim=(0, 2, 3), correction=0)
    if params.normalization != "data":
        given: Moments = IMAGENET if params.normalization == "imagenet" else params.normalization
        mean, std = given.tensors()
    input_size = params.input_size or params.image_size
    return Dataset(split, split, split, mean, std, source.classes, input_size, params.resizing)


def _load_network(params: TrainParams, data: Dataset) -> nn.Module:
    """Build the network with its weights. Raises InputError if these are of another network or number of classes."""
    network, weights = new_model(params.network, params.small_stem, data).model, str(params.weights)
    kept = load_weights(network, params.network, weights, Path(), new_classifier=True)
    if kept:
        classes = len(read_weights(params.network, weights, Path())[kept[0]])
        raise InputError(f"{weights}: the weights are for {classes:,} classes, the folder has {data.num_classes:,}")
    return network.eval()


def _estimate(params: SimpleNamespace, source: Source, read: float, forward: float) -> float:
    """Estimate the seconds of the pipeline by those that an image takes to be read and to be classified."""
    sizes = {name: len(part) for name, part in source.splits.items()}
    test = sizes.get("test", sizes["train"] * params.prepare.test_fraction)
    val = sizes.get("val", sizes["train"] * params.prepare.val_fraction)
    timed = MODELS * params.benchmark.rounds * sum(params.benchmark.batch_sizes)
    classified = VARIANTS * test + 4 * val + 2 * params.quantize.calibration_images + timed
    return START_SECONDS + len(source.labels) * read / max(1, count_workers()) + classified * forward
