"""A recipe: a complete set of params under a name, and the JSON file of what running it gave."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError
from lightweight.core.files import read_json, write_json
from lightweight.core.yaml import read_yaml
from lightweight.reporting.results import Latency
from tools.fingerprints import take_fingerprints
from tools.recipe.experiment import PARAMS, Experiment, flatten

FOLDER = Path("recipes")
RESULTS = FOLDER / "results"
KEYS = ("params", "metrics", "latency", "training", "budget", "control", "seeds")  # of the JSON file, in this order


@dataclass(frozen=True)
class Recipe:
    """Hold a recipe: its name, its params and the fingerprints of the files that they name. Keep its results."""

    name: str
    params: dict[str, Any]
    fingerprints: dict[str, str]

    @property
    def experiment(self) -> Experiment:
        """Return the experiment that runs the recipe as it is."""
        return Experiment(f"recipe-{self.name}")

    @property
    def path(self) -> Path:
        """Return the path of the file of results."""
        return RESULTS / f"{self.name}.json"

    def load(self) -> dict[str, Any]:
        """Load the results of these very params. Raises InputError where there are none."""
        stored = read_json(self.path) if self.path.exists() else {}
        if stored.get("params") != self.params:
            raise InputError(f"{self.path}: holds no results of these params: make recipe NAME={self.name}")
        return stored

    def begin(self, metrics: Mapping[str, Any]) -> None:
        """Store the metrics; whatever was measured of other params or of models with other metrics goes."""
        stored = read_json(self.path) if self.path.exists() else {}
        kept = stored if (stored.get("params"), stored.get("metrics")) == (self.params, metrics) else {}
        self._write(kept | {"params": self.params, "metrics": metrics})

    def store(self, **parts: Any) -> None:
        """Store more results beside the metrics, in place of older ones; None removes them."""
        self._write(self.load() | parts)

    def _write(self, content: Mapping[str, Any]) -> None:
        write_json(self.path, {key: content[key] for key in KEYS if content.get(key) is not None})


def read_recipe(name: str) -> Recipe:
    """Read recipes/NAME.yaml. Raises InputError for an unknown name, and for keys that are not those of params.yaml."""
    path = FOLDER / f"{name}.yaml"
    known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
    if Path(name).name != name:
        raise InputError(f"recipe {name!r}: must be the name of a file in {FOLDER}/; known are {known}")
    if not path.is_file():
        raise InputError(f"{path}: no such recipe; known are {known}")
    params, workspace = read_yaml(path), read_yaml(PARAMS)
    if differing := sorted(flatten(params, workspace).keys() ^ flatten(workspace, params).keys()):
        raise InputError(f"{path}: must have the keys of params.yaml; not in both: {', '.join(differing)}")
    return Recipe(name, params, take_fingerprints(path, Path()))


def prunes(params: Mapping[str, Any]) -> bool:
    """Tell whether these params prune anything."""
    amount = params["prune"]["amount"]
    return any(amount.values()) if isinstance(amount, dict) else bool(amount)


def compresses(params: Mapping[str, Any]) -> bool:
    """Tell whether these params compress anything: without, the file that ships is the original's own export."""
    return prunes(params) or params["quantize"]["method"] != "none"


def timings(stored: Mapping[str, Any]) -> dict[int, Latency]:
    """Return the latencies in stored results by number of threads; files of earlier versions hold those of one."""
    latency = stored.get("latency") or {}
    if "original" in latency:
        return {latency["original"]["threads"]: latency}
    return {value["original"]["threads"]: value for key, value in latency.items() if key.startswith("threads_")}
