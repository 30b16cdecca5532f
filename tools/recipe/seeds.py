"""Seeds: the recipe run by several of them, and what the models' accuracies have in common and in difference."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from scipy.stats import ttest_1samp

from lightweight.core.errors import InputError
from tools.recipe.experiment import Experiment
from tools.recipe.recipe import Recipe

LEAST = 2  # seeds, without which there is no spread
MODELS = ("original", "optimized")


def run_seeds(recipe: Recipe, number: int) -> dict[str, Any]:
    """Run the recipe by its seed and the next ones, `number` in all, and summarize them.

    Raises InputError for a single seed, for a recipe without results, and when its own seed does not give these again.
    """
    if number < LEAST:
        raise InputError(f"N = {number}: must be at least {LEAST}, for there to be a spread")
    metrics = recipe.load()["metrics"]
    rows: list[dict[str, Any]] = []
    for seed in range(recipe.params["seed"], recipe.params["seed"] + number):
        experiment = Experiment(f"seed-{seed}-{recipe.name}")
        experiment.run(recipe.params | {"seed": seed}, recipe.fingerprints, "evaluate")
        own = experiment.read_scores()
        if not rows and any(own[model] != metrics[model] for model in MODELS):
            raise InputError(f"{recipe.path}: is of other code or data: make recipe NAME={recipe.name}")
        rows.append(describe_run(seed, own))
    return {"runs": rows, "summary": summarize(rows)}


def describe_run(seed: int, metrics: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Describe the run of one seed: accuracies, and the optimized file against its original on the test images.

    The compact file, where there is one, adds its accuracy and its bytes.
    """
    accuracies = {model: metrics[model]["accuracy"] for model in (*MODELS, "compact") if model in metrics}
    if "compact" in metrics:
        accuracies["compact_bytes"] = metrics["compact"]["size_bytes"]
    paired = {key: metrics["optimized"][key] for key in ("images", "gained", "lost", "mcnemar_p")}
    return {"seed": seed, **accuracies, **paired}


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compute mean, standard deviation and worst seed of all accuracies, and the paired difference with its p-value.

    The p-value is that of the two-sided paired t-test over the seeds (Student 1908). Of the compact files, mean and
    largest number of bytes are added.
    """
    summary: dict[str, Any] = {}
    for model in (*MODELS, "compact"):
        if model not in runs[0]:
            continue
        accuracies, worst = [run[model] for run in runs], min(runs, key=lambda run: run[model])
        summary[model] = {
            "mean": fmean(accuracies),
            "sd": stdev(accuracies),
            "worst": worst[model],
            "worst_seed": worst["seed"],
        }
    if "compact_bytes" in runs[0]:
        sizes = [run["compact_bytes"] for run in runs]
        summary["compact"] |= {"best": max(run["compact"] for run in runs), "bytes": fmean(sizes), "most": max(sizes)}
    images = [run["gained"] - run["lost"] for run in runs]
    shares = [difference / run["images"] for difference, run in zip(images, runs, strict=True)]
    summary["difference"] = {"mean": fmean(shares), "sd": stdev(shares), "p": paired_p(images)}
    return summary


def paired_p(differences: Sequence[int]) -> float:
    """Compute the two-sided p-value of the t-test that the mean of the differences is 0; equal ones are certain."""
    if len(set(differences)) == 1:
        return 0.0 if differences[0] else 1.0
    return float(ttest_1samp(differences, 0).pvalue)
