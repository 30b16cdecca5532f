"""The stage writes the file of each method, the tables that explain it, and a log of what it did."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lightweight.core.files import read_csv
from lightweight.data.dataset_file import save_dataset
from lightweight.onnx.coverage import Reason, read_coverage, warning
from tests.workspace import QUICK_PRUNING, Workspace, copy_project

CHANGES = (
    *QUICK_PRUNING,
    ("  network: cnn\n", "  network: convnet\n"),
    ("  epochs: 10 ", "  epochs: 4 "),
    ("  calibration_images: 512 ", "  calibration_images: 50 "),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_dataset) -> Workspace:
    """A small project with a trained and pruned model."""
    workspace = copy_project(tmp_path_factory.mktemp("quantize") / "project")
    workspace.set_params(*CHANGES)
    save_dataset(workspace.path / "data/prepared.safetensors", tiny_dataset)
    workspace.stage("train")
    models = workspace.path / "models"
    shutil.copy(models / "original.safetensors", models / "averaged.safetensors")
    workspace.stage("prune")
    shutil.copy(models / "pruned.safetensors", models / "recalibrated.safetensors")
    return workspace


def weights(project: Workspace) -> dict[str, np.ndarray]:
    items = onnx.load(project.path / "models/optimized.onnx").graph.initializer
    return {item.name: numpy_helper.to_array(item) for item in items if "weight_quantized" in item.name}


@pytest.mark.parametrize("method", ["static", "qat"])
def test_methods_for_all_layers_leave_nothing_behind_and_keep_the_zeros(project, method):
    project.set_params(("  method: dynamic  ", f"  method: {method}  "))
    log = project.stage("quantize")
    project.set_params((f"  method: {method}  ", "  method: dynamic  "))
    assert f"quantize  {method}  100% of the MACs run on 8-bit integers; 100% of the weights take 8 bits.\n" in log
    assert [layer.reason for layer in read_coverage(project.path / "plots/coverage.csv")] == [None, None, None]
    images = read_csv(project.path / "plots/calibration.csv")
    assert len(images) == 50
    assert set(np.unique([row["class"] for row in images], return_counts=True)[1]) == {5}
    assert len(read_csv(project.path / "plots/qat.csv")) == (method == "qat")
    zeros = {name: float((value == 0).mean()) for name, value in weights(project).items()}
    assert zeros["model.conv1.weight_quantized"] >= 0.5
    assert zeros["model.conv2.weight_quantized"] >= 0.5
    assert zeros["model.fc.weight_quantized"] < 0.3


def test_a_budget_lists_its_trials_and_the_layers_that_it_keeps(project):
    project.set_params(("  max_drop: null           # layers", "  max_drop: 0.0            # layers"))
    project.set_params(("  method: dynamic  ", "  method: static  "))
    log = project.stage("quantize")
    coverage = read_coverage(project.path / "plots/coverage.csv")
    assert warning(coverage) in log
    project.set_params(("  method: static  ", "  method: dynamic  "))
    project.set_params(("  max_drop: 0.0            # layers", "  max_drop: null           # layers"))
    rows = read_csv(project.path / "plots/fallback.csv")
    excluded = {row["layer"] for row in rows if row["kind"] == "excluded"}
    assert rows[0]["kind"] == "all"
    assert {layer.name for layer in coverage if layer.reason is Reason.MAX_DROP} == excluded


def test_the_log_says_which_layers_stay_in_float32(project):
    assert "In float32 stay conv1 and conv2: the method converts linear layers only." in project.stage("quantize")
    assert len(read_csv(project.path / "plots/calibration.csv")) == 50  # for rounding
    assert {row["layer"] for row in read_csv(project.path / "plots/rounding.csv")} == {"fc"}
