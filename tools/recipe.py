"""Run a recipe as an experiment, leave the workspace alone, store the metrics beside the recipe.

    python -m tools.recipe mnist

Reads   params.yaml, recipes/NAME.yaml, and the images and weights that the recipe names
Writes  recipes/results/NAME.json, recipes/results/NAME.png
"""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lightweight.checkpointing.resource_usage import load
from lightweight.core.errors import InputError
from lightweight.core.files import write_bytes, write_json
from lightweight.core.yaml import parse_yaml, read_yaml
from lightweight.execution.determinism import work_folder
from lightweight.execution.process import run_stage
from lightweight.reporting.plots import draw_comparison
from lightweight.reporting.results import TIMED_MODELS, parse_scores
from tools.fingerprints import FINGERPRINTS, take_fingerprints

FOLDER = Path("recipes")
RESULTS = FOLDER / "results"
SCORES = Path("plots/models.csv")
COSTS = work_folder() / "cost"  # where the train stage records seconds and memory


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    recipe = FOLDER / f"{name}.yaml"
    if not recipe.is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
        raise InputError(f"{recipe}: no such recipe; known are {known}")
    if not Path(".git").exists():
        raise InputError("recipes run as DVC experiments, which need a git clone; this is a plain folder")
    workspace, chosen = read_yaml(Path("params.yaml")), read_yaml(recipe)
    current, wanted = flatten(workspace, chosen), flatten(chosen, workspace)
    if differing := sorted(current.keys() ^ wanted.keys()):
        raise InputError(f"{recipe}: must have the keys of params.yaml; not in both: {', '.join(differing)}")
    changes = [f"-S{key}={override(value)}" for key, value in wanted.items() if value != current[key]]
    changes += [f"-S{FINGERPRINTS}:{key}={value}" for key, value in take_fingerprints(recipe, Path()).items()]
    experiment = f"recipe-{name}"
    subprocess.run(["dvc", "exp", "remove", "-q", experiment], capture_output=True, check=False)
    if subprocess.run(["dvc", "exp", "run", "--temp", "-n", experiment, *changes], check=False).returncode:
        raise InputError(f"{recipe}: the experiment failed, see above")
    metrics = parse_scores(csv.DictReader(committed_text(experiment, SCORES.as_posix()).splitlines()), SCORES)
    latency = {model: read_committed(experiment, f"metrics/latency/{model}.json") for model in TIMED_MODELS}
    training = training_cost(experiment, RESULTS / f"{name}.json")
    write_json(
        RESULTS / f"{name}.json", {"params": chosen, "metrics": metrics, "latency": latency, "training": training}
    )
    write_bytes(RESULTS / f"{name}.png", draw_comparison(metrics))
    print(f"recipe  {name}  -> {RESULTS / name}.json")


def training_cost(experiment: str, result: Path) -> dict[str, Any] | None:
    """Look up seconds and memory of the training that made the experiment's original, which may be an earlier one.

    Recorded by the train stage on this machine, or stored in `result` with the same file and number of epochs; None
    if neither is so.
    """
    outs = read_committed(experiment, "dvc.lock")["stages"]["train"]["outs"]
    md5 = next(out["md5"] for out in outs if out["path"] == "models/original.safetensors")
    epochs = len(committed_text(experiment, "plots/train.csv").splitlines()) - 1
    stored = json.loads(result.read_text()).get("training") if result.exists() else None
    same = stored and (stored["model_md5"], stored["epochs"]) == (md5, epochs)
    return load(COSTS, md5, epochs) or (stored if same else None)


def read_committed(experiment: str, path: str) -> dict[str, Any]:
    """Read a YAML or JSON file as the newest experiment of that name committed it."""
    text = committed_text(experiment, path)
    return json.loads(text) if path.endswith(".json") else parse_yaml(text, path)


def committed_text(experiment: str, path: str) -> str:
    """Return the text of a file as the newest experiment of that name committed it."""
    order = ["git", "for-each-ref", "--sort=-creatordate", "--format=%(refname)", f"refs/exps/*/*/{experiment}"]
    newest = subprocess.run(order, capture_output=True, check=True, text=True).stdout.split()[0]
    return subprocess.run(["git", "show", f"{newest}:{path}"], capture_output=True, check=True, text=True).stdout


def flatten(params: dict[str, Any], like: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested params to values by dotted key; a mapping is a value, too, where `like` has none."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        nested = isinstance(value, dict) and isinstance(like.get(key), dict)
        flat |= flatten(value, like[key], f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def override(value: Any) -> str:
    """Write a value as `--set-param` takes it: JSON, but for the keys of mappings, which stand without quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {json.dumps(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


if __name__ == "__main__":
    run_stage(main)
