"""The control: what the original becomes by as much training as the optimized file had, without being compressed.

It is the recipe itself with no weight pruned and nothing quantized, so that only compression makes a difference: the
same original, which DVC has in its cache, is fine-tuned for as many epochs, at the same rate and by the same teacher.
"""

from typing import Any

from lightweight.evaluation.statistics import mcnemar_p
from tools.recipe.experiment import Experiment
from tools.recipe.recipe import Recipe, prunes

NO_WEIGHT = 1e-12  # a share that rounds to no weight; at 0, the stage prune would not fine-tune either
NO_PRUNING = {
    "method": "unstructured", "importance": "l1", "amount": NO_WEIGHT, "max_drop": None, "target_parameters": None,
    "target_macs": None, "layers": "both", "exclude": [], "scope": "layer", "schedule": "one_shot",
    "initial_sparsity": 0.0, "repair": False,
}  # fmt: skip


def control_params(params: dict[str, Any], budget: dict[str, Any]) -> dict[str, Any]:
    """Make the params of the control: all epochs that the optimized file had on top, in one round of fine-tuning."""
    lr = params["prune" if prunes(params) else "quantize"]["lr"]
    prune = params["prune"] | NO_PRUNING | {"epochs": budget["fine_tuning_epochs"], "lr": lr}
    return params | {"prune": prune, "quantize": params["quantize"] | {"method": "none", "max_drop": None}}


def run_control(recipe: Recipe, budget: dict[str, Any]) -> dict[str, Any]:
    """Run the control of a recipe, and compare the optimized file of its experiment with it on the test images."""
    control, experiment = Experiment(f"control-{recipe.name}"), recipe.experiment
    control.run(control_params(recipe.params, budget), recipe.fingerprints, "evaluate")
    gained, lost = compare(read_right(control), read_right(experiment))
    return {
        "metrics": control.read_scores()["optimized"],
        "optimized": {"gained": gained, "lost": lost, "mcnemar_p": mcnemar_p(gained, lost)},
    }


def read_right(experiment: Experiment) -> list[bool]:
    """Read for every test image whether the file that ships gets it right."""
    return [row["actual"] == row["predicted"] for row in experiment.read("plots/predictions.csv")]


def compare(before: list[bool], after: list[bool]) -> tuple[int, int]:
    """Count the images that only `after` gets right, and those that only `before` does."""
    pairs = list(zip(before, after, strict=True))
    return pairs.count((False, True)), pairs.count((True, False))
