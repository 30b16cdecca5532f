"""Budgets: how long the original of an experiment was trained, and the optimized file on top of that."""

from pathlib import Path
from typing import Any

from lightweight.data.dataset import steps_per_epoch
from lightweight.data.dataset_file import load_dataset
from tools.recipe.experiment import Experiment

ITS_ORIGINAL = "its original"  # the teacher of fine-tuning with `prune.distill`


def find_budget(experiment: Experiment, params: dict[str, Any], prepared: Path) -> dict[str, Any]:
    """Find the epochs that were trained, by the histories that the stages wrote, and the steps of one of them.

    `averaging_epochs` are those of SWA, which take the place of the original's last ones; `fine_tuning_epochs` come on
    top: those of prune and of quantization-aware training. A teacher is named by its file, None without one.
    """
    train, prune = params["train"], params["prune"]
    epochs = {name: count_epochs(experiment, name) for name in ("train", "swa", "prune", "qat")}
    shards = train["shards"] if train["exact"] else 1
    distills = prune["distill"] and epochs["prune"]
    tuned = epochs["prune"] + epochs["qat"]
    return {
        "steps_per_epoch": steps_per_epoch(load_dataset(prepared).train, train["batch_size"], 2 * shards),
        "original_epochs": epochs["train"],
        "original_weights": train["weights"],
        "original_teacher": train["teacher"] if epochs["train"] else None,
        "averaging_epochs": epochs["swa"],
        "fine_tuning_epochs": tuned,
        "fine_tuning_teacher": ITS_ORIGINAL if distills else train["teacher"] if tuned else None,
    }


def count_epochs(experiment: Experiment, stage: str) -> int:
    """Count the epochs in the history of a stage."""
    return len(experiment.read(f"plots/{stage}.csv"))
