"""The README says what is: its tables come from metrics files, its commands, links and names exist."""

import json
import re

import pytest
from ruamel.yaml import YAML

from recipes.run import flatten
from recipes.table import TABLE, recipe_table
from tests.contract import ROOT

README = (ROOT / "README.md").read_text()
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def test_its_tables_are_generated_from_the_recipes_metrics(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = list(TABLE.finditer(README))
    assert [match[2] for match in found] == ["mnist"]
    for match in found:
        assert match[0] == match[1] + recipe_table(match[2]) + match[3]


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_every_make_target_it_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"make ([a-z]+)", README))
    assert {"repro", "test", "baseline", "recipe"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_parameter_it_sets_exists():
    named = re.findall(r"-S ([\w.]+)=", README)
    assert named
    assert set(named) <= set(flatten(PARAMS))


def test_its_stage_table_lists_the_stages_in_order():
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    rows = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert rows == list(stages)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_complete_and_its_metrics_are_of_these_params(recipe):
    params = YAML(typ="safe").load(recipe)
    assert flatten(params).keys() == flatten(PARAMS).keys()
    stored = json.loads(recipe.with_suffix(".json").read_text())
    assert stored["params"] == params


def test_the_mnist_recipe_reaches_the_reference_result():
    metrics = json.loads((ROOT / "recipes/mnist.json").read_text())["metrics"]
    original, optimized = metrics["original"], metrics["optimized"]
    assert original["accuracy"] >= 0.994
    assert optimized["accuracy"] >= original["accuracy"] - 0.001
    assert original["size_bytes"] == pytest.approx(25.08e6, rel=0.01)
    assert optimized["size_bytes"] <= 6.3e6
