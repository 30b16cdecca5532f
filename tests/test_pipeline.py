"""Declared equals real: dvc.yaml lists exactly the code and the parameters that each stage uses."""

import hashlib

import pytest
from ruamel.yaml import YAML

from tests.contract import ROOT, imported_files, loaded_sections

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES = PIPELINE["stages"]
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
CHECK = (ROOT / "stages/check.py").read_text()


def module(name: str) -> str:
    return f"lightweight/{name}.py"


LIBRARY = {path.stem for path in (ROOT / "lightweight").glob("*.py")} - {"__init__"}
TECHNIQUES = {"averaging", "batchnorm", "evaluation", "latency", "pruning", "quantization", "sensitivity"}
TECHNIQUES |= {"sources", "training"}


def test_every_stage_script_is_a_stage_and_every_stage_a_script():
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"} == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_runs_as_a_module_from_the_root(name):
    assert STAGES[name]["cmd"] == f"exec python -m stages.{name}"


@pytest.mark.parametrize("name", STAGES)
def test_code_deps_are_the_closure_of_imports(name):
    declared = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    assert declared == imported_files(ROOT / f"stages/{name}.py")


@pytest.mark.parametrize("name", STAGES)
def test_declared_sections_are_the_loaded_ones(name):
    assert set(STAGES[name].get("params", [])) == loaded_sections(ROOT / f"stages/{name}.py")


def test_check_loads_every_section_of_params():
    assert loaded_sections(ROOT / "stages/check.py") == set(YAML(typ="safe").load(ROOT / "params.yaml"))


@pytest.mark.parametrize("name", sorted(TECHNIQUES))
def test_a_technique_imports_no_other_technique(name):
    assert f"lightweight.{name} import" in CHECK, "a technique has a params model"
    imported = imported_files(ROOT / module(name)) - {module(name)}
    assert not imported & {module(other) for other in TECHNIQUES}


@pytest.mark.parametrize("name", sorted(LIBRARY - TECHNIQUES))
def test_the_core_imports_no_technique(name):
    assert not imported_files(ROOT / module(name)) & {module(other) for other in TECHNIQUES}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_imports_no_stage(name):
    stages = {file for file in imported_files(ROOT / f"stages/{name}.py") if file.startswith("stages/")}
    assert stages == {f"stages/{name}.py", "stages/__init__.py"}


def test_every_module_serves_a_stage_or_is_a_command():
    used = set().union(*(imported_files(ROOT / f"stages/{name}.py") for name in STAGES))
    assert {name for name in LIBRARY if module(name) not in used} == {"predict"}


def test_the_library_is_empty_itself_so_that_importing_one_module_loads_no_other():
    assert (ROOT / "lightweight/__init__.py").read_bytes() == b""


def test_modules_and_stages_stay_small():
    for folder, limit in (("stages", 68), ("lightweight", 200)):
        for path in (ROOT / folder).glob("*.py"):
            assert len(path.read_text().splitlines()) <= limit, path


@pytest.mark.parametrize("name", STAGES)
def test_the_committed_lock_is_of_this_code_and_these_params(name):
    lock = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"][name]
    for dep in lock["deps"]:
        if dep["path"].endswith(".py"):
            assert hashlib.md5((ROOT / dep["path"]).read_bytes()).hexdigest() == dep["md5"], dep["path"]
    assert {dep["path"] for dep in lock["deps"]} == set(STAGES[name]["deps"])
    for section, value in lock.get("params", {}).get("params.yaml", {}).items():
        assert value == PARAMS[section]


def test_timings_and_pictures_are_no_outs():
    outs = {
        out if isinstance(out, str) else next(iter(out)) for stage in STAGES.values() for out in stage.get("outs", [])
    }
    assert not STAGES["benchmark"].keys() & {"outs", "metrics", "plots"}
    assert not {out for out in outs if out.endswith((".png", ".html")) or "latency" in out}
    assert "metrics/latency" in PIPELINE["metrics"]
