"""Copies of the project in which tests run the real commands, with caches of their own."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.contract import ROOT

NAMES = (
    "stages", "lightweight", "recipes", "tools", "comparisons", "edge", "tests",
    ".dvc/config", ".dvc/.gitignore", ".dvcignore",
    ".gitattributes", ".gitignore", "dvc.yaml", "params.yaml", "fingerprints.yaml", "Makefile", "README.md",
    "pyproject.toml", "requirements.txt", "constraints.txt", "constraints-cuda.txt",
)  # fmt: skip


# The default of section `prune` becomes the quickest one: half of the convolutions' weights, and one epoch to recover.
QUICK_PRUNING = (
    ("  method: structured       # unstructured: ", "  method: unstructured     # unstructured: "),
    ("  amount: 0.8 ", "  amount: 0.5 "),
    ("  layers: both             # conv | linear | both\n  exclude: []   ", "  layers: conv\n  exclude: []   "),
    ("  round_to: 4 ", "  round_to: 1 "),
    ("  epochs: 16               # of fine", "  epochs: 1                # of fine"),
    ("  lr: 0.003\n  distill: true ", "  lr: 0.001\n  distill: false "),
    (
        "  method: structured       # unstructured | structured",
        "  method: unstructured     # unstructured | structured",
    ),
)

# Latency is measured, but no verdict is waited for: beside other tests it would take the most rounds.
QUICK_BENCHMARK = (("  rounds: 30 ", "  rounds: 12 "), ("  precision: 0.1 ", "  precision: 1.0 "))


@dataclass(frozen=True)
class Workspace:
    """A copy of the project, not of its artifacts, and the environment of its commands."""

    path: Path

    @property
    def environment(self) -> dict[str, str]:
        bins = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        foreign = ("DVC_", "GIT_", "MAKE", "MFLAGS")  # as `make test` and hooks of git set them
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return own | {"PATH": bins, "DVC_SITE_CACHE_DIR": str(self.path.parent / "site"), "DVC_NO_ANALYTICS": "1"}

    def run(self, *command: str, code: int = 0, **environment: str) -> str:
        """Standard output and errors of a command that must end with the exit code."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def stage(self, name: str, code: int = 0, **environment: str) -> str:
        return self.run(sys.executable, "-m", f"stages.{name}", code=code, **environment)

    def set_params(self, *changes: tuple[str, str]) -> None:
        """Replace lines of params.yaml by their text up to the comment."""
        path = self.path / "params.yaml"
        text = path.read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
            text = text.replace(old, new)
        path.write_text(text)


def copy_project(path: Path) -> Workspace:
    """The project's files under `path`, without artifacts, caches and history."""
    for name in NAMES:
        source, target = ROOT / name, path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*.tmp"))
        else:
            shutil.copy2(source, target)
    return Workspace(path)


def commit_all(workspace: Workspace) -> None:
    """Make the copy a git repository with an identity of its own."""
    workspace.run("git", "init", "--quiet", "--initial-branch=main")
    workspace.run("git", "config", "user.name", "Test")
    workspace.run("git", "config", "user.email", "test@example.com")
    workspace.run("git", "add", ".")
    workspace.run("git", "commit", "--quiet", "-m", "start")
