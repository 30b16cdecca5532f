"""The prune stage removes channels from every later file; a request that is impossible is an error of one line."""

import shutil
import sys

import onnx
import pytest

from lightweight.core.files import read_csv
from lightweight.data.dataset_file import save_dataset
from lightweight.networks.model_file import load_model
from lightweight.reporting.results import read_scores
from tests.workspace import QUICK_PRUNING, Workspace, copy_project

CHANGES = (
    *QUICK_PRUNING,
    ("  network: cnn\n", "  network: convnet\n"),
    ("  epochs: 10 ", "  epochs: 3 "),
    ("method: unstructured     # unstructured: ", "method: structured # "),
    ("  lr: 0.001\n  distill: false ", "  lr: 0.001\n  distill: true "),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_dataset) -> Workspace:
    """Make a small project with a trained model, which is not averaged."""
    workspace = copy_project(tmp_path_factory.mktemp("structured") / "project")
    workspace.set_params(*CHANGES)
    save_dataset(workspace.path / "data/prepared.safetensors", tiny_dataset)
    workspace.stage("train")
    models = workspace.path / "models"
    shutil.copy(models / "original.safetensors", models / "averaged.safetensors")
    return workspace


def test_half_of_the_channels_are_removed_from_every_file_and_from_the_macs(project):
    for name in ("prune", "bn_update", "quantize", "compact", "evaluate"):
        project.stage(name)
    metrics = read_scores(project.path / "plots/models.csv")
    before, pruned, shipped = (metrics[name] for name in ("original", "pruned", "optimized"))
    expected = (8 * 9 + 8) + (16 * 8 * 9 + 16) + (10 * 16 * 49 + 10)
    assert pruned["parameters"] == pruned["nonzero_parameters"] == expected
    assert before["parameters"] == 20_490
    macs = 28 * 28 * 8 * 9 + 14 * 14 * 16 * 8 * 9 + 10 * 16 * 49
    assert pruned["macs"] == shipped["macs"] == macs < 0.4 * before["macs"]
    assert shipped["size_bytes"] < 0.5 * before["size_bytes"]
    assert pruned["accuracy"] > 0.5
    graph = onnx.load(project.path / "models/optimized.onnx").graph
    kernels = {tuple(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 4}
    assert {(8, 1, 3, 3), (16, 8, 3, 3)} <= kernels
    assert load_model(project.path / "models/pruned.safetensors").shapes["conv2.weight"] == [16, 8, 3, 3]
    shares = {row["layer"]: float(row["sparsity"]) for row in read_csv(project.path / "plots/sparsity.csv")}
    assert shares == {"conv1": 0.5, "conv2": 0.75, "fc": 0.5}


def test_distillation_from_the_original_changes_the_result(project):
    project.stage("prune")
    distilled = (project.path / "models/pruned.safetensors").read_bytes()
    project.set_params(("  lr: 0.001\n  distill: true ", "  lr: 0.001\n  distill: false "))
    project.stage("prune")
    project.set_params(("  lr: 0.001\n  distill: false ", "  lr: 0.001\n  distill: true "))
    assert (project.path / "models/pruned.safetensors").read_bytes() != distilled


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            [("  amount: 0.5 ", '  amount: {"conv[12]": 0.5, head: 0.5} ')],
            "prune.amount.head = 0.5: names no layer that",
        ),
        (
            [("  exclude: []              # of", "  exclude: [norm1] # of")],
            "prune.exclude = 'norm1': names no layer; layers are",
        ),
        (
            [("  amount: 0.5 ", "  amount: auto "), ("  target_macs: null", "  target_macs: 0.001")],
            "prune.target_macs = 0.001: cannot be met: with 95% of everything chosen pruned, 0.0",
        ),
    ],
)
def test_the_error_for_impossible_amounts_and_targets_is_one_line(project, tmp_path, changes, message):
    shutil.copytree(project.path, tmp_path / "project", ignore=shutil.ignore_patterns("work"))
    copy = Workspace(tmp_path / "project")
    copy.set_params(*changes)
    (copy.path / "models/pruned.safetensors").unlink(missing_ok=True)
    *_, line = copy.run(sys.executable, "-m", "stages.prune", code=1).splitlines()
    assert line.startswith(f"error: params.yaml: {message}")
    assert not (copy.path / "models/pruned.safetensors").exists()
