"""Whatever is killed at whatever moment: `dvc repro` again ends in the bytes of a run that nothing disturbed."""

import json
import random
import sys
from dataclasses import replace

import pytest
import torch

from lightweight.core.files import read_csv
from lightweight.data.dataset import Dataset
from lightweight.data.dataset_file import save_dataset
from tests.faults.killing import leftovers, outputs, run_killing, survive
from tests.workspace import QUICK_PRUNING, Workspace, copy_project

FEW = (
    *QUICK_PRUNING,
    ("  network: cnn\n", "  network: convnet\n"),
    ("  epochs: 10 ", "  epochs: 3 "),
    ("  ema: 0.0 ", "  ema: 0.9 "),
    ("  start: 5 ", "  start: 1 "),
    ("  epochs: 1                # of fine", "  epochs: 2                # of fine"),
    ("  method: dynamic ", "  method: static "),
    ("  max_drop: null           # layers", "  max_drop: 0.0           # layers"),
    ("  max_logit_error: 0.1 ", "  max_logit_error: 1.0 "),
    ("  max_accuracy_drop: 0.01 ", "  max_accuracy_drop: 1.0 "),
    ("compact:\n  enabled: false ", "compact:\n  enabled: true "),
    ("  epochs: 12 ", "  epochs: 2 "),
)


def few_images(dataset: Dataset) -> Dataset:
    return replace(dataset, train=dataset.train.take(torch.arange(32)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_dataset) -> Workspace:
    """A small project up to the pruned model."""
    project = copy_project(tmp_path_factory.mktemp("boundaries") / "project")
    project.set_params(*FEW)
    save_dataset(project.path / "data/prepared.safetensors", few_images(tiny_dataset))
    for name in ("train", "swa"):
        project.stage(name)
    models = project.path / "models"
    (models / "recalibrated.safetensors").write_bytes((models / "averaged.safetensors").read_bytes())
    return project


@pytest.mark.parametrize(
    "stage",
    [
        "train",
        pytest.param("swa", marks=pytest.mark.slow),
        pytest.param("prune", marks=pytest.mark.slow),
        pytest.param("sensitivity", marks=pytest.mark.slow),
        pytest.param("quantize", marks=pytest.mark.slow),
        pytest.param("compact", marks=pytest.mark.slow),
    ],
)
def test_a_stage_that_is_killed_at_any_touch_of_the_disk_ends_in_the_same_bytes(trained, stage):
    output = trained.run(sys.executable, "-m", "tests.faults.boundaries", stage)
    touches = [json.loads(line) for line in output.splitlines()]
    assert [number for number, _, _ in touches] == list(range(1, len(touches) + 1))
    assert not [touch for touch in touches if not touch[2]]
    kinds = {what.split(" ")[0] for _, what, _ in touches}
    assert {"open", "half", "before", "after", "os.rename", "os.mkdir", "fcntl.flock"} <= kinds
    assert len(touches) >= 20


@pytest.mark.slow
def test_the_pipeline_comes_through_kills_of_stages_and_of_dvc(finished, tmp_path):
    """The short version; `python -m tests.faults.killing 200 FOLDER LOG.csv` is the long one."""
    project = copy_project(tmp_path / "project")
    project.run("dvc", "config", "--local", "core.no_scm", "true")
    kills = survive(project, 5, random.Random(0), 1, tmp_path / "log", "prune")
    assert len(kills) == 5
    assert len({kill.kind for kill in kills}) > 2
    found, expected = outputs(project), outputs(finished.workspace)
    assert {"models/pruned.safetensors", "plots/prune.csv"} <= found.keys()
    assert {name for name in found if found[name] != expected[name]} == {"dvc.lock"}  # which has stages behind them
    assert not leftovers(project)


@pytest.mark.slow
def test_thirty_kills(tmp_path):
    run_killing(30, tmp_path, tmp_path / "kills.csv")
    assert len(read_csv(tmp_path / "kills.csv")) == 30
