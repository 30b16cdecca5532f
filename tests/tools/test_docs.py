"""The documents name what exists: links, files, modules, targets of make, parameters, and values that DVC takes.

Code files and parameters are held in all documents but CHANGELOG.md, which names what is gone, too.
"""

import json
import re
import shlex
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from lightweight.networks.factory import build
from stages import check
from tests.contract import ROOT
from tools.recipe.experiment import flatten

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
GUIDES = {"README.md": (ROOT / "README.md").read_text()} | PAGES
OTHERS = ("CONTRIBUTING.md", "SECURITY.md", "recipes/README.md")
CURRENT = GUIDES | {name: (ROOT / name).read_text() for name in OTHERS}
ALL = CURRENT | {"CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text()}
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
KEYS = set(flatten(PARAMS, PARAMS))
MAKEFILE = (ROOT / "Makefile").read_text()
MAX_LINES_TO_COMMAND = 8
MAX_LINES_OF_CONTRIBUTING = 60
SECTIONS = "|".join(name for name, value in PARAMS.items() if isinstance(value, dict))
KEY = re.compile(rf"`((?:{SECTIONS})\.(?!csv)[a-z]\w*(?:\.\w+)*)")
CODE_PATH = re.compile(r"`((?:stages|lightweight|tests|tools|comparisons|edge|recipes|docs|\.github)/[\w./-]*)`")
MODULE = re.compile(r"python -m (\w+(?:\.\w+)*)")
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KNOBS = re.compile(r"^## Knobs\n.*?^\| key \| values \| meaning \|\n(.*?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
OWN_NETWORK = re.compile(r"```python\n# (\w+)\.py(.*?)```", re.DOTALL)


def experiments(text: str) -> list[list[str]]:
    """List the values of -S of every `dvc exp run` in the fenced blocks of a document."""
    lines = "".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("dvc exp run")]
    return [[value for flag, value in pairwise(words) if flag == "-S"] for words in commands]


EXPERIMENTS = [(name, *changes) for name, text in GUIDES.items() for changes in experiments(text) if changes]


@pytest.mark.parametrize("name", ALL)
def test_links_and_pictures_exist(name):
    targets = re.findall(r"\]\(([^)#:]+)\)", ALL[name])
    for target in targets:
        assert (ROOT / name).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("name", CURRENT)
def test_every_file_and_module_of_the_project_that_is_named_exists(name):
    for path in CODE_PATH.findall(CURRENT[name]):
        if "NAME" not in path:
            assert (ROOT / path).exists(), path
    for module in MODULE.findall(CURRENT[name]):
        assert find_spec(module), module


@pytest.mark.parametrize("name", CURRENT)
def test_every_make_target_that_is_named_exists(name):
    for target in re.findall(r"(?:`|^|&& )make ([a-z]+)", CURRENT[name], re.MULTILINE):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize("name", CURRENT)
def test_every_parameter_that_is_named_exists(name):
    named = {*KEY.findall(CURRENT[name]), *re.findall(r"-S '?([\w.]+)=", CURRENT[name])}
    for key in named:
        assert key in KEYS or any(known.startswith(f"{key}.") for known in KEYS), key


def test_every_value_that_is_set_is_in_a_command_that_the_next_test_looks_at():
    assert len(EXPERIMENTS) > 15
    assert sum(text.count("-S ") for text in GUIDES.values()) == sum(len(changes) for _, *changes in EXPERIMENTS)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: " ".join(experiment))
def test_every_experiment_changes_the_params_to_valid_ones(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("params.yaml")
    path.write_text((ROOT / path).read_text())
    apply_overrides(path, list(experiment[1:]))
    assert YAML(typ="safe").load(path) != PARAMS
    assert vars(check.read_params()).keys() == PARAMS.keys()


def test_the_network_of_the_readme_is_one_that_params_can_name(tmp_path, monkeypatch, capsys):
    ((module, code),) = OWN_NETWORK.findall(GUIDES["README.md"])
    function = re.findall(rf"{module}:(\w+)", code)[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path(f"{module}.py").write_text(code.partition("\n")[2])
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    apply_overrides(Path("params.yaml"), [f"train.network={module}:{function}"])
    check.main()
    network = build(f"{module}:{function}", channels=3, image_size=16, num_classes=5, small_stem=False)
    assert sum(parameter.numel() for parameter in network.parameters()) > 0
    del sys.modules[module]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_a_question_and_begins_with_the_command_that_answers_it(name):
    lines = PAGES[name].splitlines()
    assert re.fullmatch(r"# .*\?", lines[0])
    place = lines.index("```")
    assert place < MAX_LINES_TO_COMMAND
    assert re.match(r"dvc|make|python|cp", lines[place + 1])


@pytest.mark.parametrize("name", PAGES)
def test_a_page_goes_on_with_what_happens_the_knobs_and_the_limits(name):
    headings = re.findall(r"^## (.*)", PAGES[name], re.MULTILINE)
    assert headings[-2:] == ["Knobs", "Limits"]
    assert headings[0].startswith(("What happens", "What `make verify` does"))


def test_the_knobs_of_all_pages_are_all_parameters():
    tables = [table for text in PAGES.values() for table in KNOBS.findall(text)]
    cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    named = {key for cell in cells for key in re.findall(r"`([\w.]+)`", cell)}
    assert named == KEYS


@pytest.mark.parametrize(
    "file", ["metrics/optimized.json", "metrics/latency/optimized.json", "metrics/provenance.json"]
)
def test_the_page_of_metrics_defines_every_key(file):
    page = PAGES["docs/metrics.md"]
    content = json.loads((ROOT / file).read_text())
    entries = content if file != "metrics/provenance.json" else content["models/optimized.onnx"]
    for entry in (entries, *(value for key, value in entries.items() if key.startswith("batch_"))):
        for key in entry:
            assert re.search(rf"^\| [^|]*`{key}`", page, re.MULTILINE), key


@pytest.mark.parametrize("path", sorted((ROOT / "plots").glob("*.csv")), ids=lambda path: path.name)
def test_the_page_of_metrics_defines_every_column(path):
    (row,) = re.findall(rf"^\| [^|]*`{path.name}`.*$", PAGES["docs/metrics.md"], re.MULTILINE)
    for column in path.read_text().splitlines()[0].split(","):
        assert f"`{column}`" in row or path.name == "models.csv", column


def test_contributing_is_short():
    assert len(CURRENT["CONTRIBUTING.md"].splitlines()) <= MAX_LINES_OF_CONTRIBUTING
