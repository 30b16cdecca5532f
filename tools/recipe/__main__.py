"""Run a recipe as an experiment, leave the workspace alone, store what it gave beside the recipe.

    python -m tools.recipe mnist              metrics, latencies, budgets, and a control where these differ
    python -m tools.recipe mnist --latency    latencies anew, without training, of what is in DVC's cache
    python -m tools.recipe mnist --seeds 5    five seeds

Reads   params.yaml, recipes/NAME.yaml, and the images and weights that the recipe names
Writes  recipes/results/NAME.json, recipes/results/NAME.png
"""

import argparse
import json
from typing import Any

from lightweight.checkpointing.resource_usage import load
from lightweight.core.errors import InputError
from lightweight.core.files import write_bytes
from lightweight.execution.determinism import work_folder
from lightweight.execution.process import run_stage
from lightweight.reporting.plots import draw_comparison
from tools.recipe import latency
from tools.recipe.budget import count_epochs, find_budget
from tools.recipe.control import run_control
from tools.recipe.experiment import Experiment
from tools.recipe.recipe import RESULTS, Recipe, compresses, read_recipe
from tools.recipe.seeds import run_seeds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.recipe", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", nargs="?", default="", help="of recipes/NAME.yaml")
    more = parser.add_mutually_exclusive_group()
    more.add_argument("--latency", action="store_true", help="only measure latencies anew")
    more.add_argument("--seeds", type=int, metavar="N", help="run N seeds of a recipe that has been run")
    options = parser.parse_args()
    recipe = read_recipe(options.name)
    if options.seeds is not None:
        recipe.store(seeds=run_seeds(recipe, options.seeds))
    elif options.latency:
        measure_again(recipe)
    else:
        run_recipe(recipe)
    print(f"recipe  {recipe.name}  -> {recipe.path}")


def run_recipe(recipe: Recipe) -> None:
    """Run a recipe, and store what is known as soon as it is known; the control, which may take longest, comes last."""
    experiment = recipe.experiment
    experiment.run(recipe.params, recipe.fingerprints)
    training = training_cost(experiment, recipe)
    recipe.begin(metrics := experiment.read_scores())
    write_bytes(RESULTS / f"{recipe.name}.png", draw_comparison(metrics))
    with experiment.artifacts() as folder:
        budget = find_budget(experiment, recipe.params, folder / "data/prepared.safetensors")
        recipe.store(training=training, budget=budget)
        recipe.store(latency=latency.measure(folder, recipe.params) if compresses(recipe.params) else None)
    recipe.store(control=run_control(recipe, budget) if budget["fine_tuning_epochs"] else None)


def measure_again(recipe: Recipe) -> None:
    """Measure the latencies of a recipe that has been run. Raises InputError where its experiment is another one."""
    experiment, stored = recipe.experiment, recipe.load()
    if not compresses(recipe.params):
        raise InputError(f"{recipe.name}: compresses nothing, so there is no latency to compare")
    if experiment.read_scores() != stored["metrics"]:
        raise InputError(f"{recipe.path}: is not of the experiment {experiment.name}: make recipe NAME={recipe.name}")
    with experiment.artifacts() as folder:
        recipe.store(latency=latency.measure(folder, recipe.params))


def training_cost(experiment: Experiment, recipe: Recipe) -> dict[str, Any] | None:
    """Look up seconds and memory of the training that made the experiment's original, which may be an earlier one.

    Recorded by the train stage on this machine, or stored with the same file and number of epochs; None if neither.
    """
    outs = experiment.read("dvc.lock")["stages"]["train"]["outs"]
    md5 = next(out["md5"] for out in outs if out["path"] == "models/original.safetensors")
    epochs = count_epochs(experiment, "train")
    stored = json.loads(recipe.path.read_text()).get("training") if recipe.path.exists() else None
    same = stored and (stored["model_md5"], stored["epochs"]) == (md5, epochs)
    return load(work_folder() / "cost", md5, epochs) or (stored if same else None)


if __name__ == "__main__":
    run_stage(main)
