"""Every recipe is valid and complete, its metrics are its own, and one too large to run here works for a batch."""

import importlib
import json
import re
import shutil
import tomllib
from itertools import product

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from lightweight.core.files import read_csv, read_json
from lightweight.core.torchvision_compat import torchvision
from lightweight.reporting.provenance import md5_of_file
from lightweight.reporting.results import read_scores
from stages import check
from tests.contract import ROOT
from tools import report
from tools.readme import TABLE, generate
from tools.recipe.experiment import flatten
from tools.recipe.recipe import timings

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
UNMEASURED = {"resnet18-cifar10", "efficientnet-cifar10"}  # files from elsewhere
REACHED = {  # accuracy of the original on the real MNIST, in the first three that which was published
    "mnist": 0.995,
    "convnet-mnist": 0.982,
    "keras-mnist": 0.9818,
    "lenet5-mnist": 0.992,
    "lenet300-mnist": 0.982,
    "tiny-mnist": 0.995,
}
BATCHES = ("batch_1", "batch_64")
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
INDEPENDENT = {"sensitivity": None, "benchmark": None}  # sections that no stored metric depends on


def read(path) -> dict:
    return YAML(typ="safe").load(path)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_has_every_key_with_a_valid_value(recipe, tmp_path, monkeypatch):
    own, whole = read(recipe), read(ROOT / "params.yaml")
    assert flatten(own, whole).keys() == flatten(whole, own).keys()
    shutil.copy2(recipe, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    assert check.read_params().train.network == own["train"]["network"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_metrics_of_a_recipe_are_of_these_params(recipe):
    stored = ROOT / f"recipes/results/{recipe.stem}.json"
    assert stored.exists() == (recipe.stem not in UNMEASURED)
    if stored.exists():
        content = json.loads(stored.read_text())
        params = content["params"]
        params |= {"arithmetic": "portable"} | params  # newer than most of the stored metrics
        params["prepare"] |= {"storage": "pixels", "resize": "fit"} | params["prepare"]
        params.pop("report", None)  # which is gone
        params = {"compact": read(ROOT / "params.yaml")["compact"]} | params
        added = {"license": None, "rounding": "nearest", "bias_correction": False, "exclude": [], "equalize": False}
        params["quantize"] |= added | params["quantize"]
        params["prune"] |= {"repair": False, "heads": True} | params["prune"]
        params["sensitivity"] |= {"heads": True} | params["sensitivity"]
        params["train"] |= {"shards": 1, "exact": True} | params["train"]
        assert params | INDEPENDENT == read(recipe) | INDEPENDENT
        train, epochs = content["params"]["train"], content["training"]["epochs"]
        assert epochs <= train["epochs"] if train["patience"] else epochs == train["epochs"]
        assert (content["training"]["seconds_per_epoch"] is None) == (epochs == 0)
        assert content["training"]["peak_memory_bytes"] > 100e6


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_head_of_a_recipe_says_how_amounts_and_epochs_were_chosen(recipe):
    head = recipe.read_text().partition("\n\n")[0]
    assert all(line.startswith("# ") for line in head.splitlines())
    assert re.search(r"on validation|taken over|not recorded|Nothing is pruned|amount is that of", head)
    assert re.search(r"epoch", head)


@pytest.mark.parametrize(("name", "accuracy"), REACHED.items())
def test_an_original_is_as_accurate_as_its_recipe_promises(name, accuracy):
    assert read_json(ROOT / f"recipes/results/{name}.json")["metrics"]["original"]["accuracy"] >= accuracy


def test_the_mnist_recipe_reaches_the_reference_result():
    metrics = read_json(ROOT / "recipes/results/mnist.json")["metrics"]
    original, optimized = metrics["original"], metrics["optimized"]
    assert optimized["accuracy"] >= original["accuracy"] - 0.001
    assert original["size_bytes"] == pytest.approx(25.08e6, rel=0.01)
    assert optimized["size_bytes"] <= 6.3e6


def test_structured_pruning_of_the_cnn_keeps_accuracy_with_a_tenth_of_the_parameters_and_a_fifth_of_the_time():
    stored = read_json(ROOT / "recipes/results/mnist-structured.json")
    original, pruned = (stored["metrics"][name] for name in ("original", "recalibrated"))
    assert original["accuracy"] >= 0.995
    assert pruned["accuracy"] >= original["accuracy"] - 0.001
    assert pruned["parameters"] <= 0.1 * original["parameters"]
    for latency, batch in product(timings(stored).values(), BATCHES):  # in the same runtime, both in float32
        assert latency["recalibrated"][batch]["against_exported"]["speedup"] >= 5


def test_structured_pruning_and_integers_together_make_the_cnn_ten_times_faster_than_in_pytorch():
    stored = read_json(ROOT / "recipes/results/mnist-structured.json")
    original, optimized = (stored["metrics"][name] for name in ("original", "optimized"))
    assert optimized["accuracy"] >= original["accuracy"] - 0.001
    for batch in BATCHES:
        assert timings(stored)[1]["optimized"][batch]["speedup_low"] >= 10


def test_two_fifths_of_the_macs_of_resnet18_keep_its_accuracy_in_int8_too():
    metrics = read_json(ROOT / "recipes/results/resnet18-cifar10-structured.json")["metrics"]
    original, pruned, optimized = (metrics[name] for name in ("original", "recalibrated", "optimized"))
    assert original["macs"] >= 2.5 * pruned["macs"]
    assert optimized["int8_mac_share"] == 1
    for scores in (pruned, optimized):
        assert scores["accuracy"] >= original["accuracy"] - 0.005


def test_quantizing_resnet20_costs_less_than_a_point_and_makes_it_faster_than_its_own_export():
    stored = read_json(ROOT / "recipes/results/resnet20-cifar10.json")
    original, optimized = (stored["metrics"][name] for name in ("original", "optimized"))
    assert optimized["size_bytes"] < 0.28 * original["size_bytes"]
    assert optimized["accuracy"] > original["accuracy"] - 0.01
    assert optimized["int8_mac_share"] == 1
    for latency, batch in product(timings(stored).values(), BATCHES):
        assert latency["optimized"][batch]["against_exported"]["verdict"] == "faster"


def test_the_weights_of_resnet20_come_with_the_recipes():
    stored = read_json(ROOT / "recipes/results/resnet20-cifar10.json")
    assert md5_of_file(ROOT / "recipes/weights/resnet20-cifar10.safetensors") == stored["training"]["model_md5"]


def test_the_table_has_every_recipe_with_what_was_published_and_is_generated(monkeypatch):
    monkeypatch.chdir(ROOT)
    published = tomllib.loads((ROOT / "recipes/published.toml").read_text())
    assert set(published) == {path.stem for path in RECIPES}
    table, speeds = TABLE.finditer((ROOT / "recipes/README.md").read_text())
    assert table[0] == table[1] + generate("recipes") + table[3]
    assert speeds[0] == speeds[1] + generate("speeds") + speeds[3]
    for name, entry in published.items():
        assert f"[{name}]({name}.yaml)" in table[0]
        assert entry["figures"] in table[0]
        assert ("cifar10-images" in (ROOT / f"recipes/{name}.yaml").read_text()) == ("JPEG" in entry.get("note", ""))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "macs"),
    # of ResNet-18 at 32x32 pixels, and of EfficientNet-B0 at 224x224 as torchvision publishes it
    [("resnet18-cifar10", 37.2e6), ("efficientnet-cifar10", 386e6)],
)
def test_one_batch_of_every_stage_of_a_full_setting(name, macs, tmp_path, monkeypatch, unchanged_process):
    """Only the data, the number of batches and the limits, which are for trained networks, differ from the recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    random = np.random.default_rng(0)
    for index in range(24):
        path = tmp_path / f"photos/{'cat' if index % 2 else 'dog'}/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    params = read(ROOT / f"recipes/{name}.yaml")
    models = torchvision("models")
    if params["train"]["epochs"]:
        network, path = models.efficientnet_b0(), tmp_path / "hub/checkpoints/efficientnet_b0_rwightman-7f5810bc.pth"
    else:
        network, path = models.resnet18(num_classes=2), tmp_path / params["train"]["weights"]
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)
    params["prepare"] |= {"dataset": "folder", "path": "photos"}
    params["train"]["epochs"] = min(params["train"]["epochs"], 1)
    params["quantize"] |= {"max_logit_error": 10.0, "max_accuracy_drop": 1.0}
    params["benchmark"] |= {"batch_sizes": [1], "rounds": 12}
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    for stage in STAGES:
        importlib.import_module(f"stages.{stage}").main()
    metrics = read_scores(tmp_path / "plots/models.csv")
    assert metrics["original"]["macs"] == pytest.approx(macs, rel=0.01)
    assert metrics["optimized"]["macs"] == pytest.approx(macs, rel=0.01)
    assert metrics["optimized"]["int8_mac_share"] == (params["quantize"]["method"] == "static")
    assert len(read_csv(tmp_path / "plots/train.csv")) == params["train"]["epochs"]
    image = onnx.load(tmp_path / "models/optimized.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_value for size in image[1:]] == [3, 32, 32]
    report.main()
    assert (tmp_path / "plots/report.html").exists()
