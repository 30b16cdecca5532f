"""Accuracy against sparsity: zeros and removed channels, with and without fine-tuning, beside the plain libraries.

    python -m comparisons.pruning RAW_FOLDER [SEEDS [--continue]]

`tiny` on MNIST and `resnet20` on CIFAR-10 images, of which a part is trained on for a few epochs: the differences are
what counts, not the level. RAW_FOLDER holds MNIST/raw and cifar10-images/{train,test}/CLASS. Sparsity is the share of
the parameters of the chosen layers that is zero or removed. Writes comparisons/results/pruning.csv with every figure,
comparisons/results/pruning.md with the mean and range over seeds, comparisons/results/pruning.png.
`--continue` keeps the seeds that the first holds.
"""

import math
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
import torch
from torch import nn

from comparisons.baselines.plain_pruning import plain_structured, plain_unstructured
from comparisons.training import PREPARE, TRAIN
from lightweight.batchnorm import update_batchnorm
from lightweight.core.files import read_csv, write_csv, write_text
from lightweight.core.process import run_stage
from lightweight.dataset import Dataset
from lightweight.networks.factory import build
from lightweight.networks.validation import validate
from lightweight.preparation.prepare import read_dataset
from lightweight.pruning.groups import PruningGroups, find_groups
from lightweight.pruning.importance import Importance
from lightweight.pruning.schedule import ScheduleParams, run_schedule
from lightweight.reporting.table import markdown
from lightweight.training.loop import train
from lightweight.training.optimizer import make_schedule

THREADS, BATCH, STATISTICS = 1, 64, 1000
SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
COLUMNS = ["network", "seed", "tool", "method", "scope", "sparsity", "schedule", "reestimated", "accuracy"]
TABLE, PLOT, FIGURES = (Path("comparisons/results") / f"pruning.{kind}" for kind in ("md", "png", "csv"))


@dataclass(frozen=True)
class Case:
    """A network, its data, the images that are used, and epochs of training and fine-tuning."""

    network: str
    prepare: dict
    images: int
    epochs: int
    tuning: int
    lr: float


CASES = (
    Case("tiny", {}, 10_000, 8, 2, 0.005),
    Case(
        "resnet20",
        {"dataset": "folder", "path": "cifar10-images", "image_size": 32, "channels": 3},
        2_000,
        8,
        1,
        0.005,
    ),
)
METHODS = (("unstructured", "global"), ("unstructured", "layer"), ("structured", "layer"))


def main() -> None:
    raw = Path(sys.argv[1] if len(sys.argv) > 1 else "data/raw")
    seeds = range(int(sys.argv[2]) if len(sys.argv) > 2 else 3)
    torch.set_num_threads(THREADS)
    rows = list(read_csv(FIGURES)) if "--continue" in sys.argv else []
    known = {(row["network"], int(row["seed"])) for row in rows}
    for case in CASES:
        dataset = read(case, raw)
        for seed in (seed for seed in seeds if (case.network, seed) not in known):
            for row in measured(case, dataset, seed):
                rows.append({"network": case.network, "seed": seed} | row)
            write_csv(FIGURES, COLUMNS, rows)
            print(f"{case.network}  seed {seed}  {len(rows)} figures  -> {FIGURES}", flush=True)
    report()


def report() -> None:
    """The table and the picture of what the figures hold."""
    rows = read_csv(FIGURES)
    text = table(rows)
    write_text(TABLE, text)
    draw(rows)
    print(text)


def read(case: Case, raw: Path) -> Dataset:
    changes = {name: str(raw / value) if name == "path" else value for name, value in case.prepare.items()}
    dataset, _ = read_dataset(PREPARE.model_copy(update=changes), raw, Path(), 0)
    few = {name: torch.randperm(len(getattr(dataset, name)), generator=torch.Generator().manual_seed(0))
           for name in ("train", "test")}  # fmt: skip
    train_part, test_part = dataset.train.take(few["train"][: case.images]), dataset.test.take(few["test"][:2000])
    return replace(dataset, train=train_part, val=test_part)  # nothing is chosen by these images


def measured(case: Case, dataset: Dataset, seed: int) -> Iterator[dict]:
    """Every figure of one seed."""
    torch.manual_seed(seed)
    shape = {"channels": dataset.channels, "image_size": dataset.input_size, "num_classes": dataset.num_classes}
    dense = build(case.network, **shape, small_stem=False)
    tune(dense, case, dataset, seed, case.epochs, 2 * case.lr)

    def scores(model: nn.Module) -> Iterator[tuple[bool, float]]:
        yield False, validate(model, dataset, dataset.val)[1]
        update_batchnorm(model, dataset, STATISTICS, 256, seed)
        yield True, validate(model, dataset, dataset.val)[1]

    for reestimated, accuracy in scores(deepcopy(dense)):
        about = {"tool": "ours", "method": "dense", "scope": "", "sparsity": 0.0, "schedule": "none"}
        yield about | {"reestimated": reestimated, "accuracy": accuracy}
    for sparsity in SPARSITIES[1:]:
        for method, scope in METHODS:
            about = {"tool": "ours", "method": method, "scope": scope, "sparsity": sparsity}
            for schedule, epochs in (("none", 0), ("one_shot", case.tuning), ("polynomial", case.tuning)):
                model = ours(dense, case, dataset, seed, method, scope, sparsity, schedule, epochs)
                for reestimated, accuracy in scores(model):
                    yield about | {"schedule": schedule, "reestimated": reestimated, "accuracy": accuracy}
        fine_tune = partial(tune, case=case, dataset=dataset, seed=seed, epochs=case.tuning, lr=case.lr)
        plain: dict[str, Callable[..., nn.Module]] = {
            "torch.nn.utils.prune": plain_unstructured,
            "torch-pruning": partial(plain_structured, ratio=width(dense, dataset, sparsity), image=dataset.blank(1)),
        }
        for tool, function in plain.items():
            method = "unstructured" if function is plain_unstructured else "structured"
            scope = "global" if function is plain_unstructured else "layer"
            about = {"tool": tool, "method": method, "scope": scope, "sparsity": sparsity, "schedule": "one_shot"}
            try:
                accuracy = validate(function(deepcopy(dense), sparsity, fine_tune), dataset, dataset.val)[1]
            except RuntimeError:  # of shapes: what is left of the network does not run
                accuracy = math.nan
            yield about | {"reestimated": False, "accuracy": accuracy}


def tune(model: nn.Module, case: Case, dataset: Dataset, seed: int, epochs: int, lr: float, each_step=None) -> None:
    params = TRAIN.model_copy(update={"network": case.network, "batch_size": BATCH})
    how = {"lr": lr, "schedule": partial(make_schedule, "cosine", params, epochs)}
    how |= {"each_step": each_step} if each_step else {}
    for _ in train(model, dataset, params, range(1, epochs + 1), seed, **how):
        pass


def chosen(model: nn.Module, dataset: Dataset, method: str) -> PruningGroups:
    return find_groups(model, dataset.blank(1), method, "both", [], "prune")


def width(dense: nn.Module, dataset: Dataset, sparsity: float) -> float:
    """The share of every unit's channels without which `sparsity` of what can be removed of the parameters is gone."""
    groups = chosen(deepcopy(dense), dataset, "structured")
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        wanted = {name: groups.allowed_count(round(middle * size), size) for name, size in groups.sizes.items()}
        low, high = (middle, high) if groups.cost(wanted, "parameters") > 1 - sparsity else (low, middle)
    return high


def ours(
    dense: nn.Module, case: Case, dataset: Dataset, seed: int, method: str, scope: str, sparsity: float,
    schedule: str, epochs: int,
) -> nn.Module:  # fmt: skip
    """The dense model pruned and fine-tuned, or only pruned in one shot."""
    model = deepcopy(dense)
    kind = "one_shot" if schedule == "none" else schedule
    params = ScheduleParams(scope=scope, epochs=epochs, schedule=kind, rounds=1, initial_sparsity=0.0)
    amount = width(dense, dataset, sparsity) if method == "structured" else sparsity
    importance = Importance("l1" if method == "unstructured" else "l2", dataset, 2, seed)

    def recover(number: int, each_step: Callable[[float], None]) -> None:
        if epochs:
            tune(model, case, dataset, seed, epochs, case.lr, each_step)

    run_schedule(model, chosen(model, dataset, method), amount, params, importance, recover)
    return model


def groups(rows: list[dict[str, str]]) -> dict[tuple[str, ...], dict[str, list[float]]]:
    """Percent by network and kind of pruning, and in it by sparsity."""
    found: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        if row["method"] != "dense":
            key = tuple(row[name] for name in ("network", "tool", "method", "scope", "schedule", "reestimated"))
            found.setdefault(key, {}).setdefault(row["sparsity"], []).append(100 * float(row["accuracy"]))
    return found


def unpruned(network: str, rows: list[dict[str, str]]) -> list[float]:
    """Percent before pruning, by seed."""
    own = (row for row in rows if (row["network"], row["method"]) == (network, "dense"))
    return [100 * float(row["accuracy"]) for row in own if row["reestimated"] == "False"]


def ends(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def table(rows: list[dict[str, str]]) -> str:
    parts = []
    for case in CASES:
        before = unpruned(case.network, rows)
        if not before:
            continue
        head = ["tool", "pruned", "fine-tuned", "statistics", *(f"{share:.0%}" for share in SPARSITIES[1:])]
        lines = [
            [
                tool,
                f"{method}, {scope}",
                schedule.replace("_", " "),
                "new" if new == "True" else "old",
                *(spread(by_sparsity[str(share)]) for share in SPARSITIES[1:]),
            ]
            for (network, tool, method, scope, schedule, new), by_sparsity in groups(rows).items()
            if network == case.network
        ]
        title = f"`{case.network}`, {case.images:,} training images, {case.epochs} + {case.tuning} epochs, "
        title += f"{len(before)} seeds: dense {spread(before)} % of 2,000 test images."
        parts.append(f"{title}\n\n{markdown([head, *lines])}\n{gain(case.network, rows)}\n")
    return "\n".join(parts)


def gain(network: str, rows: list[dict[str, str]]) -> str:
    """What pruning over all layers together gains on that of each layer alone."""
    found, said = groups(rows), []
    for schedule in ("none", "one_shot", "polynomial"):
        both = [found[network, "ours", "unstructured", scope, schedule, "True"] for scope in ("global", "layer")]
        gains = (mean(both[0][share]) - mean(both[1][share]) for share in ("0.5", "0.7", "0.9"))
        points = [f"{round(points, 1) + 0.0:+.1f}" for points in gains]
        said.append(f"{schedule.replace('_', ' ')} {', '.join(points)}")
    return f"Global against layer with new statistics at 50, 70 and 90 %, in points, by fine-tuning: {'; '.join(said)}."


def spread(values: list[float]) -> str:
    if any(map(math.isnan, values)):
        return "does not run"
    return f"{mean(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def draw(rows: list[dict[str, str]]) -> None:
    cases = [case for case in CASES if any(row["network"] == case.network for row in rows)]
    figure, axes = plt.subplots(2, len(cases), figsize=(6.4 * len(cases), 8.4), squeeze=False, sharex=True)
    styles = {"none": ":", "one_shot": "--", "polynomial": "-"}
    colors = {"unstructured, global": "#1f6fb2", "unstructured, layer": "#7fb2d9", "structured, layer": "#c8553d"}
    panels = [(case.network, new) for new in ("True", "False") for case in cases]
    for axis, panel in zip(axes.flat, panels, strict=True):
        for (network, tool, method, scope, schedule, new), by_sparsity in groups(rows).items():
            if ((network, new), tool) == (panel, "ours"):
                values = [unpruned(network, rows), *by_sparsity.values()]
                shares, name = [0.0, *(100 * float(share) for share in by_sparsity)], f"{method}, {scope}"
                label = f"{name}, {schedule.replace('_', ' ')}"
                axis.plot(shares, list(map(mean, values)), styles[schedule], color=colors[name], label=label)
                axis.fill_between(shares, *zip(*map(ends, values), strict=True), color=colors[name], alpha=0.12)
        axis.set_title(f"{panel[0]}: accuracy with {'new' if panel[1] == 'True' else 'old'} statistics (%)")
        axis.set_xlabel("sparsity (%)")
    axes[0][0].legend(fontsize=7)
    figure.savefig(PLOT, dpi=130, bbox_inches="tight")


if __name__ == "__main__":
    run_stage(report if sys.argv[1:] == ["--report"] else main)
