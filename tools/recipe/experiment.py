"""DVC experiments: run with given params in a copy of the workspace, and read as they were committed."""

import csv
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError, one_line
from lightweight.core.files import write_text
from lightweight.core.yaml import parse_yaml, read_yaml
from lightweight.execution.determinism import work_folder
from lightweight.reporting.results import Scores, parse_scores
from tools.fingerprints import FINGERPRINTS

PARAMS = Path("params.yaml")
SCORES = "plots/models.csv"
ARTIFACTS = (
    "data/prepared.safetensors", "data/prepared",
    "models/original.safetensors", "models/recalibrated.safetensors", "models/optimized.onnx",
)  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """Name a DVC experiment. What is read is that of the newest one of this name, whatever commit it is based on."""

    name: str

    def run(self, params: dict[str, Any], fingerprints: dict[str, str], *stages: str) -> None:
        """Run it up to the stages, without any all of them; DVC restores what is in its cache.

        It takes the place of one of the same name that is based on the same commit. Raises InputError when it fails.
        """
        if not Path(".git").exists():
            raise InputError("recipes run as DVC experiments, which need a git clone; this is a plain folder")
        workspace = read_yaml(PARAMS)
        current, wanted = flatten(workspace, params), flatten(params, workspace)
        changes = [f"-S{key}={override(value)}" for key, value in wanted.items() if value != current[key]]
        changes += [f"-S{FINGERPRINTS}:{key}={value}" for key, value in fingerprints.items()]
        subprocess.run(["dvc", "exp", "remove", "-q", self.name], capture_output=True, check=False)
        command = ["dvc", "exp", "run", "--temp", "-n", self.name, *changes, *stages]
        if subprocess.run(command, check=False).returncode:
            raise InputError(f"{self.name}: the experiment failed, see above")

    @property
    def commit(self) -> str:
        """Return the commit of the newest experiment of this name. Raises InputError where there is none."""
        order = ["git", "for-each-ref", "--sort=-creatordate", "--format=%(objectname)", f"refs/exps/*/*/{self.name}"]
        found = subprocess.run(order, capture_output=True, check=True, text=True).stdout.split()
        if not found:
            raise InputError(f"{self.name}: this repository has no experiment of that name")
        return found[0]

    def read(self, path: str) -> Any:
        """Read a JSON file, the rows of a CSV, or YAML, as it was committed. Raises InputError where it was not."""
        done = subprocess.run(["git", "show", f"{self.commit}:{path}"], capture_output=True, check=False, text=True)
        if done.returncode:
            raise InputError(f"{self.name}: has no {path}")
        match Path(path).suffix:
            case ".json":
                return json.loads(done.stdout)
            case ".csv":
                return list(csv.DictReader(io.StringIO(done.stdout)))
        return parse_yaml(done.stdout, path)

    def read_scores(self) -> Scores:
        """Read the scores of all models."""
        return parse_scores(self.read(SCORES), Path(SCORES))

    @contextmanager
    def artifacts(self, paths: Sequence[str] = ARTIFACTS) -> Iterator[Path]:
        """Copy data and models from DVC's cache to a temporary folder. Raises InputError where one is gone."""
        from dvc.api import DVCFileSystem  # takes a second

        work_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{self.name}-", dir=work_folder()) as name:
            folder, files = Path(name), DVCFileSystem(rev=self.commit)
            for path in paths:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                try:
                    files.get(path, str(folder / path), recursive=True)
                except Exception as error:  # DVC raises its own, which are many
                    raise InputError(f"{self.name}: {path} is not in DVC's cache: {one_line(error)}") from None
            yield folder


def run_module(module: str, folder: Path, params: dict[str, Any], **options: Any) -> subprocess.CompletedProcess:
    """Run a module of this project in a folder of artifacts, by these params; `options` are those of subprocess."""
    write_text(folder / PARAMS, json.dumps(params))
    path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run([sys.executable, "-m", module], cwd=folder, env=environment, check=False, **options)


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
