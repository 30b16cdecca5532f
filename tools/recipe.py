"""Run a recipe as an experiment, leave the workspace alone, store the metrics beside the recipe.

    python -m tools.recipe mnist

Reads   params.yaml, recipes/NAME.yaml
Writes  recipes/results/NAME.json, recipes/results/NAME.png
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lightweight.core.errors import InputError
from lightweight.core.files import write_bytes, write_json
from lightweight.core.process import run_stage
from lightweight.core.variants import VARIANTS
from lightweight.reporting.plots import draw_comparison
from lightweight.training.resource_usage import load

FOLDER = Path("recipes")
RESULTS = FOLDER / "results"
COSTS = Path("work/cost")  # where the train stage notes what it took
MEASURED = ("original", "exported", "recalibrated", "optimized")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    recipe = FOLDER / f"{name}.yaml"
    if not recipe.is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
        raise InputError(f"{recipe}: no such recipe; known are {known}")
    if not Path(".git").exists():
        raise InputError("recipes run as DVC experiments, which need a git clone; this is a plain folder")
    here, there = read(Path("params.yaml")), read(recipe)
    params, wanted = flatten(here, there), flatten(there, here)
    if odd := sorted(params.keys() ^ wanted.keys()):
        raise InputError(f"{recipe}: must have the keys of params.yaml; not in both: {', '.join(odd)}")
    changes = [f"-S{key}={override(value)}" for key, value in wanted.items() if value != params[key]]
    experiment = f"recipe-{name}"
    subprocess.run(["dvc", "exp", "remove", "-q", experiment], capture_output=True, check=False)
    if subprocess.run(["dvc", "exp", "run", "--temp", "-n", experiment, *changes], check=False).returncode:
        raise InputError(f"{recipe}: the experiment failed, see above")
    metrics = {variant: committed(experiment, f"metrics/{variant}.json") for variant in VARIANTS}
    latency = {model: committed(experiment, f"metrics/latency/{model}.json") for model in MEASURED}
    stored = {"params": read(recipe), "metrics": metrics, "latency": latency, "training": cost(experiment, name)}
    write_json(RESULTS / f"{name}.json", stored)
    write_bytes(RESULTS / f"{name}.png", draw_comparison(metrics))
    print(f"recipe  {name}  -> {RESULTS / name}.json")


def cost(experiment: str, name: str) -> dict[str, Any] | None:
    """What training the very file of the experiment took, now or when its recipe was stored; None if nobody knows."""
    outs = committed(experiment, "dvc.lock")["stages"]["train"]["outs"]
    trained = next(out["md5"] for out in outs if out["path"] == "models/original.safetensors")
    epochs = len(text(experiment, "plots/train.csv").splitlines()) - 1
    before = RESULTS / f"{name}.json"
    stored = json.loads(before.read_text()).get("training") if before.exists() else None
    known = stored if stored and (stored["model_md5"], stored["epochs"]) == (trained, epochs) else None
    return load(COSTS, trained, epochs) or known


def committed(experiment: str, path: str) -> dict[str, Any]:
    """A YAML or JSON file as the newest experiment of that name committed it."""
    return YAML(typ="safe").load(text(experiment, path))


def text(experiment: str, path: str) -> str:
    order = ["git", "for-each-ref", "--sort=-creatordate", "--format=%(refname)", f"refs/exps/*/*/{experiment}"]
    newest = subprocess.run(order, capture_output=True, check=True, text=True).stdout.split()[0]
    return subprocess.run(["git", "show", f"{newest}:{path}"], capture_output=True, check=True, text=True).stdout


def read(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path.read_text())


def flatten(content: dict[str, Any], like: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key; a mapping is a value, too, where `like` has none."""
    flat = {}
    for key, value in content.items():
        both = isinstance(value, dict) and isinstance(like.get(key), dict)
        flat |= flatten(value, like[key], f"{prefix}{key}.") if both else {f"{prefix}{key}": value}
    return flat


def override(value: Any) -> str:
    """As `--set-param` takes it: JSON, but for the keys of mappings, which stand without quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {json.dumps(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


if __name__ == "__main__":
    run_stage(main)
