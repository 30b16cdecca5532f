"""Examples that several tests use: tiny networks, parameters, trained and pruned models, their files, and metrics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx
import torch
from torch import Tensor, nn

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.checkpointing.session import Session, discard
from lightweight.core.files import write_csv
from lightweight.core.variants import VARIANTS
from lightweight.data.augmentation import AugmentParams
from lightweight.data.dataset import Dataset, Split
from lightweight.networks.factory import build
from lightweight.networks.model_file import ModelFile
from lightweight.onnx.export import export_onnx
from lightweight.pruning.groups import PruningGroups, find_groups
from lightweight.pruning.importance import Importance
from lightweight.pruning.params import PruneParams
from lightweight.pruning.schedule import PruningState, run_schedule
from lightweight.quantization import post_training
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.quantizer import Quantizer
from lightweight.training import loop
from lightweight.training.history import Epoch
from lightweight.training.loop import FineTune
from lightweight.training.optimizer import make_schedule
from lightweight.training.params import TrainingSettings, TrainParams

torch.set_num_threads(1)  # threads that wait for each other on tensors as small as these cost more than they save

BNNET = "tests.examples:bnnet"
METHODS = ("none", "fp16", "dynamic", "static", "int4")


def bnnet(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Build a network of convolutions and linear layers with and without bias, and three BatchNorm layers."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (image_size // 4) ** 2, 32, bias=False),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, num_classes),
    )


def new(name: str, seed: int = 0, image_size: int = 28) -> nn.Module:
    """Build a network for the tiny data set, initialised by `seed`; the global random generator does not change."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(name, channels=1, image_size=image_size, num_classes=10, small_stem=False)


@cache
def small_cnn() -> nn.Module:
    """Build an untrained cnn for `small_images` once; it must not be changed in place."""
    return new("cnn", image_size=12).eval()


def augment_params(**changes: Any) -> AugmentParams:
    return AugmentParams(**{"shift": 0.0, "rotate": 0.0, "scale": 0.0, "flip": False, "crop": 0, "cutout": 0} | changes)


def train_params(**changes: Any) -> TrainParams:
    given = {
        "network": "convnet",
        "small_stem": False,
        "weights": None,
        "freeze": [],
        "epochs": 3,
        "batch_size": 64,
        "shards": 1,
        "exact": True,
        "optimizer": "adamw",
        "momentum": 0.9,
        "lr": 0.003,
        "weight_decay": 0.01,
        "decay_all": True,
        "clip_norm": 0.0,
        "precision": "fp32",
        "schedule": "constant",
        "step_epochs": 1,
        "step_factor": 0.1,
        "label_smoothing": 0.0,
        "ema": 0.0,
        "teacher": None,
        "temperature": 1.0,
        "teacher_weight": 0.5,
        "patience": 0,
        "snapshots": 0,
        "augment": augment_params(),
    }
    return TrainParams(**given | changes)


def prune_params(**changes: Any) -> PruneParams:
    given = {
        "method": "unstructured",
        "importance": "l1",
        "images": 100,
        "amount": 0.5,
        "max_drop": None,
        "target_parameters": None,
        "target_macs": None,
        "trials": 3,
        "layers": "both",
        "exclude": [],
        "heads": True,
        "scope": "layer",
        "round_to": 1,
        "epochs": 1,
        "schedule": "one_shot",
        "rounds": 2,
        "initial_sparsity": 0.0,
        "repair": False,
        "lr": 0.001,
        "distill": False,
    }
    return PruneParams(**given | changes)


@cache
def noise(channels: int = 1, size: int = 28, number: int = 32) -> Dataset:
    """Make a data set of random images of two classes; its three splits are the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (number, channels, size, size), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(number) % 2)
    half = torch.full((channels,), 0.5)
    return Dataset(split, split, split, half, half, ("even", "odd"), input_size=size)


def groups_of(model: nn.Module, params: PruneParams, dataset: Dataset) -> PruningGroups:
    """Find the pruning groups of a network by section `prune`."""
    return find_groups(model, dataset.blank(1), params, "prune", params.round_to)


def prune_in_place(
    model: nn.Module, dataset: Dataset | None = None, fine_tune: Any = lambda number, each_step: None, **changes: Any
) -> PruningGroups:
    """Prune a network by the changed parameters, by default without fine-tuning, and return its pruning groups."""
    params, dataset = prune_params(**changes), dataset or noise()
    groups = groups_of(model, params, dataset)
    importance = Importance(params.importance, dataset, params.images, seed=0)
    run_schedule(PruningState(model, groups, params, importance), params.amount, fine_tune, Checkpointer())
    return groups


def quantize_params(method: str, **changes: Any) -> QuantizeParams:
    given = {
        "method": method,
        "calibration": "minmax",
        "percentile": 99.9,
        "calibration_images": 300,
        "reduce_range": True,
        "rounding": "nearest",
        "bias_correction": False,
        "exclude": [],
        "equalize": False,
        "max_drop": None,
        "epochs": 1,
        "lr": 0.001,
        "max_logit_error": 0.05,
        "max_accuracy_drop": 0.05,
        "license": None,
    }
    return QuantizeParams(**given | changes)


def train(
    model: nn.Module,
    dataset: Dataset,
    epochs: range = range(1, 4),
    seed: int = 0,
    teacher: nn.Module | None = None,
    each_step: Any = lambda done: None,
    **changes: Any,
) -> list[Epoch]:
    """Train a network for `epochs` and return the rows of the history."""
    settings = training_settings(train_params(**changes), len(epochs), teacher)
    return list(loop.train(model, Session(dataset, seed), settings, epochs, each_step))


def training_settings(params: TrainParams, epochs: int, teacher: nn.Module | None = None) -> TrainingSettings:
    """Make the settings with which the train stage trains."""
    return TrainingSettings(params, params.lr, partial(make_schedule, params.schedule, params, epochs), teacher)


def state(model: nn.Module) -> dict[str, Tensor]:
    """Copy the weights and statistics of a model, so that later training does not change them."""
    return deepcopy(model.state_dict())


def different(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """List the names of the tensors that are not bit for bit the same."""
    assert before.keys() == after.keys()
    return {name for name in before if before[name].numpy().tobytes() != after[name].numpy().tobytes()}


@cache
def trained(name: str, dataset: Dataset) -> nn.Module:
    """Train a network for five epochs once; it must not be changed in place."""
    model = new(name)
    train(model, dataset, range(1, 6), lr=0.01)
    return model.eval()


@cache
def pruned_convnet(dataset: Dataset) -> nn.Module:
    """Prune half of the weights of each layer of a trained convnet, once; no other weight rounds to zero in int8."""
    model, reloaded = deepcopy(trained("convnet", dataset)), new("convnet")
    prune_in_place(model)
    reloaded.load_state_dict(model.state_dict())
    return reloaded.eval()


@cache
def small_images(dataset: Dataset) -> Dataset:
    """Cut the middle 12x12 pixels out of every image: for these the cnn has one million weights instead of six."""
    splits = {name: getattr(dataset, name) for name in ("train", "val", "test")}
    cut = {name: Split(split.images[..., 8:20, 8:20], split.labels) for name, split in splits.items()}
    return replace(dataset, **cut, input_size=12)


@cache
def exported(model: nn.Module, dataset: Dataset) -> onnx.ModelProto:
    """The model as float32 ONNX, exported once; not to be changed in place."""
    return export_onnx(model, dataset)


def quantizer(
    model: nn.Module,
    dataset: Dataset,
    method: str,
    seed: int = 0,
    *,
    checkpointer: Any = None,
    log: Callable[[str], None] = discard,
    **changes: Any,
) -> Quantizer:
    """Make the quantizer of a model; its fine-tuning learns from the labels only."""
    params = quantize_params(method, **changes)
    session = Session(dataset, seed, checkpointer=checkpointer or Checkpointer(), log=log)
    fine_tune = FineTune(session, train_params(), params.lr, params.epochs, teacher=None)
    return Quantizer(ModelFile(model, "its network", {}), params, session, fine_tune)


def quantize(model: nn.Module, dataset: Dataset, method: str, seed: int = 0, **changes: Any) -> bytes:
    """Make the file that ships of a model, which is exported once, however far the file strays from the model."""
    limits = {"max_logit_error": 1e9, "max_accuracy_drop": 1.0}
    with exported_once():
        return quantizer(model, dataset, method, seed, **limits | changes).run().content


@contextmanager
def exported_once() -> Iterator[None]:
    """Export equal models once for all methods that do not train."""
    with patch.object(post_training, "export_onnx", exported):
        yield


@cache
def shipped(model: nn.Module, method: str, dataset: Dataset) -> bytes:
    """Return the file that ships of a model, made once."""
    return quantize(model, dataset, method)


def convnet_file(method: str, dataset: Dataset) -> bytes:
    """Return the file that ships of the pruned convnet."""
    return shipped(pruned_convnet(dataset), method, dataset)


def without_test_split(dataset: Dataset) -> Dataset:
    """Return the data set with a test split that must not be read: only shape and number of its images are known."""

    class Unread(Tensor):
        def __getitem__(self, index: object) -> Tensor:
            raise AssertionError("the test split was read")

    return replace(dataset, test=Split(dataset.test.images.as_subclass(Unread), dataset.test.labels))


def made_up_metrics() -> dict[str, dict[str, Any]]:
    """Make up scores by variant as `evaluate` measures them."""
    return {
        name: {
            "accuracy": 0.95 - 0.01 * number,
            "accuracy_low": 0.92 - 0.01 * number,
            "accuracy_high": 0.97 - 0.01 * number,
            "images": 450,
            "gained": number,
            "lost": 2 * number,
            "mcnemar_p": 0.5,
            "size_bytes": 4_000_000 - 700_000 * number,
            "compressed_bytes": 3_000_000 - 600_000 * number,
            "parameters": 1_000_000,
            "nonzero_parameters": 1_000_000 - 100_000 * number,
            "macs": 8_000_000,
            "int8_mac_share": 0.25 * (number == 4),
        }
        for number, name in enumerate(VARIANTS)
    }


def write_scores(path: Path, scores: dict[str, dict[str, Any]]) -> None:
    """Write scores by variant as the table of `evaluate`."""
    rows = [{"model": name, **own} for name, own in scores.items()]
    write_csv(path, rows[0], rows)


def made_up_latency(cpu: str = "A CPU") -> dict[str, dict[str, Any]]:
    """Make up latencies by measured model as `benchmark` writes them."""
    batch = {
        "rounds": 30,
        "latency_ms": 1.5,
        "latency_ms_p05": 1.25,
        "latency_ms_p95": 2.4,
        "dispersion": 1.6,
        "speedup": 2.0,
        "speedup_low": 1.9,
        "speedup_high": 2.1,
        "precise": True,
        "verdict": "faster",
    }
    about = {"cpu": cpu, "threads": 1, "cpu_mhz": 2445.4, "load_before": 0.04, "load_after": 1.0}
    return {name: about | {"batch_1": batch, "batch_64": batch} for name in ("original", "exported", "optimized")}
