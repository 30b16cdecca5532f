"""The README is short and true: its table comes from metrics files, its stages and folders are those that exist."""

import re
from itertools import pairwise

from ruamel.yaml import YAML

from tests.contract import ROOT
from tests.pipeline.test_contract import outs_of
from tools.readme import TABLE, generate

README = (ROOT / "README.md").read_text()
MAX_LINES = 130
FOLDERS = {"stages", "lightweight", "tools", "recipes", "comparisons", "edge", "docs", "tests"}


def test_it_fits_on_a_few_screens():
    assert len(README.splitlines()) <= MAX_LINES


def test_its_tables_are_generated_from_the_recipes_metrics(monkeypatch):
    monkeypatch.chdir(ROOT)
    tables = list(TABLE.finditer(README))
    assert [match[2] for match in tables] == ["recipe mnist-structured"]
    for match in tables:
        assert match[0] == match[1] + generate(match[2]) + match[3]


def test_its_commands_come_first_and_its_order_is_that_of_a_first_reading():
    places = [README.index(part) for part in ("<!-- recipe", "![", "make repro ", "make test ", "make verify ")]
    headings = re.findall(r"^## (.*)", README, re.MULTILINE)
    assert places == sorted(places)
    assert places[-1] < README.index("## ")
    assert headings == ["What happens", "Everyday commands", "Your own images and your own network", "Layout", "More"]


def test_its_stage_table_lists_the_stages_in_order():
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    table = README.partition("| stage | does | writes |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert rows == list(stages)


def test_its_graph_is_that_of_the_pipeline_without_the_arrows_that_others_imply():
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    made = {out: name for name, stage in stages.items() for out in outs_of(stage)}
    before = {name: {made[dep] for dep in stage["deps"] if dep in made} for name, stage in stages.items()}
    reached: dict[str, set[str]] = {}  # the stages on which each depends at all
    for name, direct in before.items():  # dvc.yaml lists every stage after those
        reached[name] = direct.union(*(reached[other] for other in direct))
    implied = {name: set().union(*(reached[other] for other in direct)) for name, direct in before.items()}
    chains = README.partition("flowchart LR;")[2].partition("```")[0].replace(";", "\n").splitlines()
    shown = {pair for chain in chains for pair in pairwise(chain.split(" --> "))}
    assert {(a.strip(), b.strip()) for a, b in shown} == {
        (other, name) for name in stages for other in before[name] - implied[name]
    }


def test_its_layout_names_every_folder_and_every_room_and_technique_in_three_words():
    tree = README.partition("## Layout\n\n```\n")[2].partition("```")[0]
    top = {line.split("/")[0] for line in tree.splitlines() if not line.startswith(" ")}
    inner = dict(re.findall(r"^    ([\w.]+/?) +(.+)$", tree, re.MULTILINE))
    library = [path for path in (ROOT / "lightweight").iterdir() if path.name[0] not in "._"]
    assert top - {"data"} == FOLDERS
    assert set(inner) == {f"{path.name}/" if path.is_dir() else path.name for path in library}
    assert all(len(words.split()) <= 3 for words in inner.values())


def test_every_page_of_docs_is_linked():
    linked = set(re.findall(r"\]\(docs/([\w.-]+)\)", README))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")}
