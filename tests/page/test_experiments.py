"""Experiments are read from git as DVC commits them, whatever commit they are based on."""

import json
import subprocess
from dataclasses import replace

import pytest

from lightweight.page.experiments import flatten, read_experiments
from lightweight.page.reproduce import make_recipe

METRICS = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "size_bytes": 100}
PARAMS = "seed: 0\nprepare:\n  dataset: digits\nprune:\n  amount: 0.5\n"


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Make a repository whose HEAD has metrics, latency and parameters."""
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    git("init", "-q", "-b", "main")
    write("metrics/latency/optimized.json", json.dumps({"batch_1": {"latency_ms": 2.0}}))
    write("params.yaml", PARAMS)
    write("metrics/optimized.json", json.dumps(METRICS))
    commit()
    return tmp_path


def write(name: str, text: str) -> None:
    from pathlib import Path

    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def commit() -> str:
    git("add", "-A")
    git("commit", "-q", "-m", "x", "--allow-empty")
    return git("rev-parse", "HEAD")


def experiment(name: str, **files: str) -> None:
    """Commit changed files as DVC does: on a reference of its own, which HEAD does not reach."""
    base = git("rev-parse", "HEAD")
    for path, text in files.items():
        write(path, text)
    made = commit()
    git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", made)
    git("reset", "-q", "--hard", base)


def test_metrics_and_parameters_are_those_of_the_experiment(repository):
    experiment(
        "good",
        **{
            "metrics/optimized.json": json.dumps(METRICS | {"accuracy": 0.99}),
            "params.yaml": PARAMS.replace("0.5", "0.7"),
        },
    )
    (found,) = read_experiments()
    assert (found.name, found.metrics["accuracy"]) == ("good", 0.99)
    now = dict(flatten({"seed": 0, "prepare": {"dataset": "digits"}, "prune": {"amount": 0.5}}))
    assert found.changes(now) == {"prune.amount": 0.7}
    assert found.has_data_of(now)
    assert not found.has_data_of(now | {"prepare.dataset": "mnist"})
    assert not found.has_data_of(now | {"seed": 1}), "another split of the images"
    published = replace(found, params=found.params | {"prepare.dataset": "mnist"})
    assert published.has_data_of(now | {"prepare.dataset": "mnist", "seed": 1}), "which has a test split of its own"


def test_a_latency_that_the_experiment_did_not_measure_is_not_taken_for_its_own(repository):
    experiment("stale", **{"metrics/optimized.json": json.dumps(METRICS | {"size_bytes": 1})})
    experiment("timed", **{"metrics/latency/optimized.json": json.dumps({"batch_1": {"latency_ms": 1.0}})})
    found = {experiment.name: experiment.latency for experiment in read_experiments()}
    assert found == {"stale": {}, "timed": {"batch_1": {"latency_ms": 1.0}}}


def test_references_of_dvc_itself_and_experiments_that_failed_are_no_experiments(repository):
    git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")
    experiment("broken", **{"metrics/optimized.json": "{"})
    assert read_experiments() == []


def test_a_folder_without_git_has_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert read_experiments() == []


def test_the_recipe_names_the_commit_and_sets_what_differs_from_it(repository):
    head = git("rev-parse", "HEAD")
    same = dict(flatten({"seed": 0, "prepare": {"dataset": "digits"}, "prune": {"amount": 0.5}}))
    assert make_recipe({"commit": head}, same).commands == (f"git checkout {head[:10]}", "make repro")
    recipe = make_recipe({"commit": head, "changed": ["stages/prune.py"]}, same | {"prune.amount": None, "seed": 3})
    assert recipe.differing == (("seed", 0, 3), ("prune.amount", 0.5, None))
    assert recipe.commands[1] == "dvc exp run -S seed=3 -S prune.amount=null"
    assert recipe.changed == ("stages/prune.py",)


def test_without_a_record_there_is_still_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert make_recipe({}, {}).commands == ("make repro",)
    assert make_recipe({"commit": "0" * 40}, {"seed": 1}).differing == ()
