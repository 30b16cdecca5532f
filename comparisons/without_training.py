"""Pruning without any training: magnitude, saliency after the optimal brain surgeon, and least-squares repair.

    python -m comparisons.without_training [RAW_FOLDER]

Prunes resnet20 with the weights of its recipe, which come with the repository, and scores it on the test images of
CIFAR-10 in RAW_FOLDER, data/raw by default, as it is and with new BatchNorm statistics. Writes
comparisons/results/without_training.csv and .md; what is there is not measured again. Takes about half an hour.
"""

import math
import sys
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from comparisons.preparing import read_whole
from comparisons.processes import describe_machine
from lightweight.batchnorm import reestimate_batchnorm
from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.files import read_csv, write_csv, write_text
from lightweight.core.params import GENERAL, load_params
from lightweight.data.augmentation import AugmentSection
from lightweight.data.dataset import Dataset
from lightweight.evaluation.scores import EvaluatedModel, score
from lightweight.execution.determinism import configure_torch
from lightweight.execution.process import run_stage
from lightweight.macs import count_macs
from lightweight.networks.model_file import load_model
from lightweight.onnx.logits import torch_logits
from lightweight.preparation.params import PrepareParams
from lightweight.pruning.allocation import bisect
from lightweight.pruning.groups import find_groups
from lightweight.pruning.importance import Importance
from lightweight.pruning.params import PruneParams
from lightweight.pruning.schedule import PruningState, run_schedule
from lightweight.reporting.table import accuracy_with_interval, markdown

RECIPE = "resnet20-cifar10"
FIGURES, TABLE = (Path("comparisons/results") / f"without_training.{kind}" for kind in ("csv", "md"))
STATISTICS, BATCH_SIZE = 2000, 250  # images for new statistics, and in a batch of them


@dataclass(frozen=True)
class Case:
    """Describe a pruning by section `prune`, and the share of the weights, or of the MACs, that goes."""

    method: str
    share: float
    importance: str = "l1"
    scope: str = "layer"
    repair: bool = False


CASES = [
    Case("unstructured", 0.0),
    *(Case("structured", 0.3, repair=repair) for repair in (False, True)),
    *(
        case
        for share in (0.8, 0.6)
        for case in (
            Case("unstructured", share),
            Case("unstructured", share, scope="global"),
            Case("unstructured", share, "obs", scope="global"),
        )
    ),
    *(Case("unstructured", share, scope="global", repair=True) for share in (0.8, 0.6)),
    *(Case("structured", 0.3, scope="global", repair=repair) for repair in (False, True)),
    *(Case("unstructured", share, "obs") for share in (0.8, 0.6)),
]
COLUMNS = [
    "method", "share", "importance", "scope", "repair", "statistics", "zeros", "macs", "accuracy", "accuracy_low",
    "accuracy_high", "images", "gained", "lost", "mcnemar_p", "seconds", "cpu", "date", "torch",
]  # fmt: skip


def main() -> None:
    raw = Path(sys.argv[1] if len(sys.argv) > 1 else "data/raw")
    sections = {"prepare": PrepareParams, "train": AugmentSection, "prune": PruneParams}
    params = load_params(Path(f"recipes/{RECIPE}.yaml"), **GENERAL, **sections)
    configure_torch(params)
    prepare = params.prepare.model_copy(update={"path": str(raw / Path(params.prepare.path).name)})
    dataset = read_whole(prepare, raw, params.seed)
    dense = load_model(Path(f"recipes/weights/{RECIPE}.safetensors"), dataset).model
    original = EvaluatedModel(predict(dense, dataset), {})
    rows: list[dict[str, Any]] = read_csv(FIGURES) if FIGURES.exists() else []
    known = {tuple(str(row[key]) for key in asdict(CASES[0])) for row in rows}
    for case in CASES:
        if tuple(map(str, asdict(case).values())) in known:
            continue
        start = time.perf_counter()
        model = prune(dense, case, params.prune, dataset, params.seed)
        about = asdict(case) | describe_machine() | {"seconds": round(time.perf_counter() - start, 1)}
        about |= {"zeros": share_of_zeros(model), "macs": count_macs(model, dataset.blank(1))}
        for statistics in ("old", "new"):
            if statistics == "new":
                reestimate_batchnorm(model, dataset, STATISTICS, BATCH_SIZE, params.seed, params.train.augment)
            row = score(EvaluatedModel(predict(model, dataset), {}), original, dataset.test.labels.numpy())
            row |= about | {"statistics": statistics}
            rows.append({key: row[key] for key in COLUMNS})
            print(f"{case}  {statistics} statistics  {row['accuracy']:.2%}", flush=True)
        write_csv(FIGURES, COLUMNS, rows)
        write_text(TABLE, describe(pd.read_csv(FIGURES)))


def predict(model: nn.Module, dataset: Dataset) -> np.ndarray:
    """Predict the classes of the test images, by which nothing is chosen."""
    return torch_logits(model.eval(), dataset, dataset.test, BATCH_SIZE).argmax(1)


def prune(dense: nn.Module, case: Case, params: PruneParams, dataset: Dataset, seed: int) -> nn.Module:
    """Prune a copy of the network at once, without training."""
    model = deepcopy(dense)
    own = {key: value for key, value in asdict(case).items() if key != "share"}
    given = PruneParams(**params.model_dump() | own | {"layers": "both", "epochs": 0, "schedule": "one_shot"})
    groups = find_groups(model, dataset.blank(1), given, "prune")
    amount = case.share
    if case.method == "structured":
        amount = share_of_channels(dense, given, dataset, seed, 1 - case.share)
    state = PruningState(model, groups, given, Importance(given.importance, dataset, given.images, seed))
    run_schedule(state, amount, lambda number, each_step: None, Checkpointer())
    return model


def share_of_channels(dense: nn.Module, params: PruneParams, dataset: Dataset, seed: int, target: float) -> float:
    """Find the share of the channels without which at most the share `target` of the MACs is left."""
    whole = count_macs(dense, dataset.blank(1))

    def too_large(amount: float) -> bool:
        model = deepcopy(dense)
        groups = find_groups(model, dataset.blank(1), params, "prune")
        plain = params.model_copy(update={"repair": False})
        state = PruningState(model, groups, plain, Importance(params.importance, dataset, 2, seed))
        run_schedule(state, amount, lambda number, each_step: None, Checkpointer())
        return count_macs(model, dataset.blank(1)) > target * whole

    return bisect(too_large, low=0.0, high=1.0, steps=8)[1]


def share_of_zeros(model: nn.Module) -> float:
    """Return the share of the weights of convolutions and linear layers that is zero."""
    weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    return 1 - sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)


def describe(figures: pd.DataFrame) -> str:
    """Describe the figures as a table in Markdown."""
    dense = figures[(figures["share"] == 0) & (figures["statistics"] == "old")].iloc[0]
    figures = figures.assign(points=100 * (dense["accuracy"] - figures["accuracy"]))
    figures = figures.sort_values(["method", "share"], ascending=False, kind="stable")
    plain = figures[(figures["importance"] == "l1") & ~figures["repair"] & (figures["share"] > 0)]
    rival = plain.groupby(["method", "share"])["points"].min()  # the better scope and statistics of magnitude pruning
    recovered = [
        1 - row["points"] / rival.get((row["method"], row["share"]), math.nan) for _, row in figures.iterrows()
    ]
    pruned = figures["share"] > 0
    macs = 1 - figures["macs"] / dense["macs"]
    table = pd.DataFrame(
        {
            "pruned": [
                f"{left:.1%} of the MACs" if method == "structured" else f"{zeros:.0%} of the weights"
                for method, left, zeros in zip(figures["method"], macs, figures["zeros"], strict=True)
            ],
            "by": figures["importance"].where(pruned, ""),
            "scope": figures["scope"].where(pruned, ""),
            "repair": (figures["repair"] | (figures["importance"] == "obs")).map({True: "yes", False: ""}),
            "statistics": figures["statistics"],
            "test accuracy": figures.apply(accuracy_with_interval, axis=1),
            "points lost": figures["points"].map("{:.2f}".format),
            "recovered": pd.Series(recovered, figures.index).map("{:.0%}".format).where(pruned, ""),
            "p": figures["mcnemar_p"].map("{:.2g}".format),
            "seconds": figures["seconds"].map("{:.0f}".format).where(pruned, ""),
        }
    )
    return (
        f"`{RECIPE}` on {dense['images']:,} test images, on {', '.join(figures['cpu'].unique())}, "
        f"{figures['date'].max()}; seconds while other work ran. Statistics are BatchNorm's, new ones from "
        f"{STATISTICS:,} training images. Recovered is the share of what `l1` without repair loses, by the better "
        f"scope and the better statistics; p is McNemar's, against the dense network.\n\n{markdown(table)}"
    )


if __name__ == "__main__":
    run_stage(main)
