"""Declared equals real: dvc.yaml lists exactly the rooms of code and the parameters that each stage uses."""

import hashlib
import json
import statistics
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lightweight.evaluation.scores import COMPARED
from tests.contract import ROOT, directly_imported, imported_files, loaded_sections, room

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES = PIPELINE["stages"]
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
LIBRARY = [path for path in (ROOT / "lightweight").rglob("*.py") if path.stat().st_size]

# Which room may import which, beside `core`, `execution` and `data`, which all of them may. A technique that fits
# one file is a room of its own. The arrows have no circle: what stands on the right knows nothing of what stands on
# the left.
ARROWS = {
    "execution": (),
    "data": (),
    "preparation": ("checkpointing/run_folder",),
    "networks": (),
    "checkpointing": (),
    "onnx": (),
    "batchnorm": (),
    "macs": (),
    "swa": ("networks", "checkpointing", "training", "batchnorm"),
    "training": ("networks", "checkpointing"),
    "tracing": (),
    "dependencies": ("tracing", "networks"),
    "pruning": (
        "tracing/trace",
        "dependencies",
        "networks",
        "checkpointing",
        "training/history",
        "batchnorm",
        "macs",
        "gram/measure",
        "reconstruction",
    ),
    "sensitivity": ("networks", "checkpointing", "pruning"),
    "gram": (),
    "reconstruction": ("gram",),
    "rounding": ("gram", "onnx", "checkpointing"),
    "equalization": ("onnx",),
    "fallback": ("checkpointing",),
    "quantization": (
        "gram/measure",
        "rounding",
        "equalization",
        "fallback",
        "onnx",
        "networks",
        "checkpointing",
        "training/history",
        "macs",
    ),
    "codec": ("onnx/checksum",),
    "compaction": ("codec", "gram", "rounding/onnx_file", "onnx", "checkpointing", "training", "batchnorm"),
    "evaluation": ("onnx", "codec", "networks", "macs"),
    "reporting": ("evaluation/statistics",),
    "page": ("reporting", "onnx/coverage", "evaluation/latency", "evaluation/statistics"),
    "predict": ("onnx/session", "preparation"),
    "preflight": ("networks", "preparation", "training"),
}
# A change in a room, or in a technique of one file, makes these stages stale, beside `check`.
STALE = {
    "preparation": {"prepare"},
    "networks": {"train", "swa", "prune", "sensitivity", "bn_update", "quantize", "compact", "evaluate", "benchmark"},
    "checkpointing": {"prepare", "train", "swa", "prune", "sensitivity", "quantize", "compact"},
    "training": {"train", "swa", "prune", "quantize", "compact"},
    "pruning": {"prune", "sensitivity"},
    "gram": {"prune", "sensitivity", "quantize", "compact"},
    "reconstruction": {"prune", "sensitivity"},
    "rounding": {"quantize", "compact"},
    "compaction": {"compact"},
    "codec": {"compact", "evaluate"},
    "equalization": {"quantize"},
    "fallback": {"quantize"},
    "tracing": {"prune", "sensitivity"},
    "dependencies": {"prune", "sensitivity"},
    "quantization": {"quantize"},
    "onnx": {"quantize", "compact", "evaluate", "benchmark"},
    "evaluation": {"evaluate", "benchmark"},
    "reporting": {"provenance", "plot"},
    "page": set(),
    "batchnorm.py": {"swa", "prune", "sensitivity", "bn_update", "compact"},
    "swa.py": {"swa"},
    "sensitivity.py": {"sensitivity"},
    "macs.py": {"prune", "sensitivity", "quantize", "evaluate"},
    "predict.py": set(),
    "preflight.py": set(),
    "core": set(STAGES) - {"check"},
    "execution": set(STAGES) - {"check"},
    "data": set(STAGES) - {"check", "provenance", "plot"},
}


def test_every_stage_script_is_a_stage_and_every_stage_a_script():
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"} == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_runs_as_a_module_from_the_root(name):
    assert STAGES[name]["cmd"] == f"exec python -m stages.{name}"


@pytest.mark.parametrize("name", STAGES)
def test_code_deps_are_the_rooms_of_what_is_imported(name):
    declared = {dep for dep in STAGES[name]["deps"] if dep.startswith(("stages/", "lightweight"))}
    own = {f"stages/{name}.py", "stages/__init__.py"}
    imported = imported_files(ROOT / f"stages/{name}.py")
    rooms = {"lightweight"} if name == "check" else {room(file) for file in imported if file.startswith("lightweight/")}
    assert declared == own | rooms


@pytest.mark.parametrize("name", STAGES)
def test_declared_sections_are_the_loaded_ones(name):
    declared = {key.partition(".")[0] for key in STAGES[name].get("params", []) if isinstance(key, str)}
    assert declared == loaded_sections(ROOT / f"stages/{name}.py")


def test_check_loads_every_section_of_params():
    assert loaded_sections(ROOT / "stages/check.py") == set(PARAMS)


def test_dvc_yaml_is_short_enough_to_read():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 330


def test_imports_between_rooms_follow_the_arrows():
    for path in LIBRARY:
        own = name_of(path)
        for target in map(name_of, directly_imported(path)):
            inside = target.split("/")[0]
            allowed = ("core", "execution", "data", own.split("/")[0], *ARROWS.get(own.split("/")[0], ()))
            assert inside in allowed or target in allowed, f"{own} imports {target}"


def test_every_arrow_is_used():
    used = {(name_of(path).split("/")[0], name_of(target)) for path in LIBRARY for target in directly_imported(path)}
    for own, targets in ARROWS.items():
        for target in targets:
            assert any(name == own and f"{found}/".startswith(f"{target}/") for name, found in used), (own, target)


def test_core_knows_no_room():
    for path in (ROOT / "lightweight/core").glob("*.py"):
        assert {name_of(target).split("/")[0] for target in directly_imported(path)} <= {"core"}, path


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "lightweight").with_suffix("").as_posix().removesuffix("/__init__")


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_imports_no_stage(name):
    stages = {file for file in imported_files(ROOT / f"stages/{name}.py") if file.startswith("stages/")}
    assert stages == {f"stages/{name}.py", "stages/__init__.py"}


def test_every_module_serves_a_stage_or_is_a_command():
    used = set().union(*(imported_files(ROOT / f"stages/{name}.py") for name in STAGES))
    scripts = ("report", "readme", "layers", "recipe/__main__")
    commands = ("lightweight/predict.py", *(f"tools/{name}.py" for name in scripts))
    used |= set().union(*(imported_files(ROOT / command) for command in commands))
    assert {path.relative_to(ROOT).as_posix() for path in LIBRARY} <= used


def test_rooms_are_empty_themselves_so_that_importing_one_module_loads_no_other():
    for path in (ROOT / "lightweight").rglob("__init__.py"):
        assert path.read_bytes() == b"", path


def test_modules_stages_and_rooms_stay_small():
    sizes = {path: len(path.read_text().splitlines()) for path in LIBRARY}
    for path, lines in sizes.items():
        assert lines <= 200, path
    assert statistics.median(sizes.values()) < 90
    for path in (ROOT / "stages").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 45, path
    for folder in (path for path in (ROOT / "lightweight").iterdir() if path.is_dir()):
        assert len([path for path in folder.glob("*.py") if path.stat().st_size]) <= 12, folder


@pytest.mark.parametrize("name", STAGES)
def test_the_committed_lock_is_of_this_code_and_these_params(name):
    lock = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"][name]
    for dep in lock["deps"]:
        path = ROOT / dep["path"]
        if dep["path"].startswith(("stages/", "lightweight")):
            assert (md5_of_folder(path) if path.is_dir() else md5(path.read_bytes())) == dep["md5"], dep["path"]
    assert {dep["path"] for dep in lock["deps"]} == set(STAGES[name]["deps"])
    for path, sections in lock.get("params", {}).items():
        current = YAML(typ="safe").load(ROOT / path)
        for key, value in sections.items():
            assert reduce(getitem, key.split("."), current) == value, key


def test_the_committed_lock_has_no_stage_that_is_gone():
    assert set(YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]) == set(STAGES)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def md5_of_folder(folder: Path) -> str:
    """DVC's hash of a folder: of a JSON list of its files, in the order of their paths."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.suffix in (".py", ".j2")}
    listing = [{"md5": md5(files[name].read_bytes()), "relpath": name} for name in sorted(files)]
    return f"{md5(json.dumps(listing, sort_keys=True).encode())}.dir"


def test_timings_and_pictures_are_no_outs():
    outs = {path for stage in STAGES.values() for path in outs_of(stage)}
    assert not [name for name in ("benchmark", "provenance", "plot") if outs_of(STAGES[name])]
    assert not {out for out in outs if out.endswith((".png", ".html")) or "latency" in out}


def test_dvc_keeps_every_stage_that_computes_in_its_run_cache_but_prepare_whose_raw_files_it_does_not_know():
    """It keeps no stage with a file that is not cached, unless that is one of its metrics or plots."""
    uncached = {name for name, stage in STAGES.items() for out in stage.get("outs", []) if isinstance(out, dict)}
    assert uncached == {"prepare"}
    tables = [out for stage in STAGES.values() for kind in ("metrics", "plots") for out in stage.get(kind, [])]
    for path, flags in (item for table in tables for item in table.items()):
        assert flags["cache"] is False, f"git keeps {path}"


def test_dvc_shows_the_metrics_of_two_models():
    assert [out for stage in STAGES.values() for out in outs_of(stage, "metrics")] == [
        f"metrics/{name}.json" for name in COMPARED
    ]
    assert "metrics" not in PIPELINE


def outs_of(stage: dict, *kinds: str) -> list[str]:
    """List the paths of the outs of a stage; with `kinds`, of these alone."""
    entries = [out for kind in kinds or ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    return [out if isinstance(out, str) else next(iter(out)) for out in entries]
