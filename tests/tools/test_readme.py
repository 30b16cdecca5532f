"""The README says what is: its tables come from metrics files, its commands, links and names exist."""

import re

from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from tests.contract import ROOT
from tools.readme import TABLE, generate
from tools.recipe import flatten

README = (ROOT / "README.md").read_text()
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")


def test_its_tables_are_generated_from_the_recipes_metrics(monkeypatch):
    monkeypatch.chdir(ROOT)
    tables = list(TABLE.finditer(README))
    assert [match[2] for match in tables] == ["recipe mnist-structured"]
    for match in tables:
        assert match[0] == match[1] + generate(match[2]) + match[3]


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
    named = re.findall(r"-S '?([\w.]+)=", README)
    assert named
    assert set(named) <= set(flatten(PARAMS, PARAMS))


def test_its_stage_table_lists_the_stages_in_order():
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    table = README.partition("| stage | does | writes |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert rows == list(stages)


def test_every_change_it_shows_is_one_that_dvc_takes(tmp_path):
    for number, change in enumerate(re.findall(r"-S ('[^']+'|\S+)", README)):
        path = tmp_path / f"{number}.yaml"
        path.write_text((ROOT / "params.yaml").read_text())
        apply_overrides(path, [change.strip("'")])
        assert YAML(typ="safe").load(path) != PARAMS
