"""Accuracy against sparsity: zeros and removed channels, with and without fine-tuning, beside the plain libraries.

    python -m comparisons.pruning RAW_FOLDER [SEEDS [--continue]]

`tiny` on MNIST and `resnet20` on CIFAR-10 images, of which a part is trained on for a few epochs: the differences are
what counts, not the level. RAW_FOLDER holds MNIST/raw and cifar10-images/{train,test}/CLASS. Sparsity is the share of
the parameters of the chosen layers that is zero or removed. Writes comparisons/results/pruning.csv with every figure,
and the table and the picture of comparisons.pruning_report. `--continue` keeps the seeds that the first holds.
"""

import math
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from comparisons.baselines.plain_pruning import plain_structured, plain_unstructured
from comparisons.preparing import read_whole
from comparisons.pruning_cases import CASES, METHODS, SPARSITIES, Case
from comparisons.pruning_report import COLUMNS, FIGURES, report
from comparisons.training import PREPARE, TRAIN
from lightweight.batchnorm import reestimate_batchnorm
from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.checkpointing.session import Session
from lightweight.core.files import read_csv, write_csv
from lightweight.data.augmentation import OFF
from lightweight.data.dataset import Dataset, random_indices
from lightweight.execution.process import run_stage
from lightweight.networks.factory import build
from lightweight.networks.validation import validate
from lightweight.pruning.allocation import bisect
from lightweight.pruning.groups import PruningGroups, find_groups
from lightweight.pruning.importance import Importance
from lightweight.pruning.params import ScheduleParams
from lightweight.pruning.schedule import PruningState, run_schedule
from lightweight.training.loop import FineTune

THREADS, BATCH, STATISTICS = 1, 64, 1000
SCHEDULES = ("none", "one_shot", "polynomial")


@dataclass(frozen=True)
class Pruning:
    """Describe what is pruned, how far, and by which schedule with fine-tuning; `none` prunes at once without any."""

    method: str
    scope: str
    sparsity: float
    schedule: str


@dataclass(frozen=True)
class Trial:
    """Hold a case with its data and the seed of everything that is random in the trial."""

    case: Case
    dataset: Dataset
    seed: int

    def tune(
        self, model: nn.Module, epochs: int, lr: float, each_step: Callable[[float], None] = lambda done: None
    ) -> None:
        """Train the model in place for so many epochs, with a learning rate that falls from `lr` to 0 on a cosine."""
        params = TRAIN.model_copy(update={"network": self.case.network, "batch_size": BATCH})
        fine_tune = FineTune(Session(self.dataset, self.seed), params, lr, epochs, teacher=None)
        for _ in fine_tune(model, 1, each_step):
            pass

    def accuracy(self, model: nn.Module) -> float:
        """Measure the accuracy of the model on the test images."""
        return validate(model, self.dataset, self.dataset.val)[1]


def main() -> None:
    raw = Path(sys.argv[1] if len(sys.argv) > 1 else "data/raw")
    seeds = range(int(sys.argv[2]) if len(sys.argv) > 2 else 3)
    torch.set_num_threads(THREADS)
    rows: list[dict[str, Any]] = list(read_csv(FIGURES)) if "--continue" in sys.argv else []
    known = {(row["network"], int(row["seed"])) for row in rows}
    for case in CASES:
        dataset = read(case, raw)
        for seed in (seed for seed in seeds if (case.network, seed) not in known):
            for row in measure(Trial(case, dataset, seed)):
                rows.append({"network": case.network, "seed": seed} | row)
            write_csv(FIGURES, COLUMNS, rows)
            print(f"{case.network}  seed {seed}  {len(rows)} figures  -> {FIGURES}", flush=True)
    report()


def read(case: Case, raw: Path) -> Dataset:
    """Read the images of a case: random ones for training, and 2,000 for testing, by which nothing is chosen."""
    changes = {name: str(raw / value) if name == "path" else value for name, value in case.prepare.items()}
    dataset = read_whole(PREPARE.model_copy(update=changes), raw, 0)
    train_part = dataset.train.take(random_indices(len(dataset.train), case.images, seed=0))
    test_part = dataset.test.take(random_indices(len(dataset.test), 2000, seed=0))
    return replace(dataset, train=train_part, val=test_part)


def measure(trial: Trial) -> Iterator[dict[str, Any]]:
    """Train the network, prune and score it in every way; yields a row per figure."""
    torch.manual_seed(trial.seed)
    dataset, case = trial.dataset, trial.case
    dense = build(case.network, dataset.channels, dataset.input_size, dataset.num_classes, small_stem=False)
    trial.tune(dense, case.epochs, 2 * case.lr)
    yield from score(deepcopy(dense), Pruning("dense", "", 0.0, "none"), trial)
    for sparsity in SPARSITIES[1:]:
        for (method, scope), schedule in product(METHODS, SCHEDULES):
            pruning = Pruning(method, scope, sparsity, schedule)
            yield from score(prune(dense, pruning, trial), pruning, trial)
        yield from measure_libraries(dense, sparsity, trial)


def score(model: nn.Module, pruning: Pruning, trial: Trial) -> Iterator[dict[str, Any]]:
    """Score a pruned model before and after its BatchNorm statistics are estimated anew; yields a row each."""
    for reestimated in (False, True):
        if reestimated:
            reestimate_batchnorm(model, trial.dataset, STATISTICS, 256, trial.seed, OFF)
        yield {"tool": "ours", **asdict(pruning), "reestimated": reestimated, "accuracy": trial.accuracy(model)}


def measure_libraries(dense: nn.Module, sparsity: float, trial: Trial) -> Iterator[dict[str, Any]]:
    """Prune the dense network once by the plain libraries, fine-tune and score it; yields a row per library."""
    fine_tune = partial(trial.tune, epochs=trial.case.tuning_epochs, lr=trial.case.lr)
    ratio = share_of_channels(dense, trial.dataset, sparsity)
    structured = partial(plain_structured, ratio=ratio, image=trial.dataset.blank(1))
    libraries: list[tuple[str, str, str, Callable[..., nn.Module]]] = [
        ("torch.nn.utils.prune", "unstructured", "global", plain_unstructured),
        ("torch-pruning", "structured", "layer", structured),
    ]
    for tool, method, scope, function in libraries:
        try:
            accuracy = trial.accuracy(function(deepcopy(dense), sparsity, fine_tune))
        except RuntimeError:  # of shapes: what is left of the network does not run
            accuracy = math.nan
        pruning = Pruning(method, scope, sparsity, "one_shot")
        yield {"tool": tool, **asdict(pruning), "reestimated": False, "accuracy": accuracy}


def groups_of(model: nn.Module, dataset: Dataset, method: str) -> PruningGroups:
    """Find the groups of channels, or the layers, that a method prunes."""
    return find_groups(
        model, dataset.blank(1), SimpleNamespace(method=method, layers="both", exclude=[], heads=True), "prune"
    )


def share_of_channels(dense: nn.Module, dataset: Dataset, sparsity: float) -> float:
    """Find the share of channels to remove from every group so that `sparsity` of all parameters is gone."""
    groups = groups_of(deepcopy(dense), dataset, "structured")

    def too_large(share: float) -> bool:
        wanted = {name: groups.allowed_count(round(share * size), size) for name, size in groups.sizes.items()}
        return groups.cost(wanted, "parameters") > 1 - sparsity

    return bisect(too_large, low=0.0, high=1.0, steps=12)[1]


def prune(dense: nn.Module, pruning: Pruning, trial: Trial) -> nn.Module:
    """Prune a copy of the dense model, and fine-tune the copy where the schedule says so."""
    model = deepcopy(dense)
    epochs = 0 if pruning.schedule == "none" else trial.case.tuning_epochs
    schedule = "one_shot" if pruning.schedule == "none" else pruning.schedule
    given = {"scope": pruning.scope, "schedule": schedule, "epochs": epochs, "rounds": 1}
    params = ScheduleParams.model_validate(given | {"initial_sparsity": 0.0, "repair": False})
    structured = pruning.method == "structured"
    amount = share_of_channels(dense, trial.dataset, pruning.sparsity) if structured else pruning.sparsity
    importance = Importance("l2" if structured else "l1", trial.dataset, 2, trial.seed)

    def recover(number: int, each_step: Callable[[float], None]) -> None:
        if epochs:
            trial.tune(model, epochs, trial.case.lr, each_step)

    state = PruningState(model, groups_of(model, trial.dataset, pruning.method), params, importance)
    run_schedule(state, amount, recover, Checkpointer())
    return model


if __name__ == "__main__":
    run_stage(main)
