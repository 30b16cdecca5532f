"""The record says who made the bytes that are there, stays while they stay, and is no part of dvc.lock."""

import hashlib
import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lightweight.core.errors import InputError
from lightweight.core.machine import PACKAGES, cpu_type, package_versions, platform_name
from lightweight.reporting import provenance
from lightweight.reporting.provenance import describe_origin, update_record
from stages import provenance as stage
from tests.contract import ROOT
from tests.workspace import Workspace, commit_all

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")


@pytest.fixture
def made(tmp_path, monkeypatch) -> Path:
    """Make a file in the current folder, which belongs to no repository."""
    monkeypatch.chdir(tmp_path)
    path = Path("model")
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def project(tmp_path, monkeypatch) -> Workspace:
    """Make a git repository with a file of each kind that decides about bytes, and one that does not."""
    workspace = Workspace(tmp_path / "project")
    for name in ("params.yaml", "dvc.yaml", "stages/a.py", "lightweight/größe b.py", "README.md"):
        path = workspace.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("threads: 1\n" if name == "params.yaml" else "\n")
    commit_all(workspace)
    monkeypatch.chdir(workspace.path)
    return workspace


def test_an_entry_says_what_decides_about_bytes(made):
    entry = update_record(Path("record"), [made], threads=3)["model"]
    assert entry == {
        "md5": hashlib.md5(b"weights").hexdigest(),
        "commit": None,
        "changed": None,
        "python": ".".join(map(str, sys.version_info[:3])),
        "platform": platform_name(),
        "cpu": cpu_type(),
        "threads": 3,
        "versions": {name: metadata.version(name) for name in PACKAGES if name != "timm"} | {"timm": None},
    }


def test_an_entry_stays_while_its_bytes_do_and_is_new_with_them(made):
    record = Path("record")
    before = update_record(record, [made], threads=1)
    record.write_text(json.dumps(before))
    assert update_record(record, [made], threads=2) == before
    made.write_bytes(b"others")
    after = update_record(record, [made], threads=2)
    assert after["model"]["md5"] == hashlib.md5(b"others").hexdigest()
    assert after["model"]["threads"] == 2


def test_an_entry_has_the_number_of_processes_where_bytes_depend_on_it(made):
    record = Path("record")
    before = update_record(record, [made], threads=1, processes=3)
    assert before["model"]["processes"] == 3
    assert "processes" not in update_record(record, [made], threads=1)["model"]
    record.write_text(json.dumps(before))
    assert update_record(record, [made], threads=1, processes=2) == before, "it was made by three"


def test_an_artifact_that_is_no_more_is_dropped(made):
    record = Path("record")
    record.write_text(json.dumps({"vanished": {"md5": "0"}, **update_record(record, [made], threads=1)}))
    assert list(update_record(record, [made], threads=1)) == ["model"]


def test_it_names_the_commit_and_the_changed_files_that_decide_about_bytes(project):
    head = project.run("git", "rev-parse", "HEAD").strip()
    assert (describe_origin(1)["commit"], describe_origin(1)["changed"]) == (head, [])
    for name in ("README.md", "stages/a.py", "lightweight/größe b.py"):
        (project.path / name).write_text("changed\n")
    (project.path / "params.yaml").unlink()
    (project.path / "stages/untracked.py").touch()
    project.run("git", "add", "stages/a.py")
    assert describe_origin(1)["commit"] == head
    assert describe_origin(1)["changed"] == ["lightweight/größe b.py", "params.yaml", "stages/a.py"]


def test_an_archive_unpacked_in_a_foreign_clone_is_of_no_commit(project, monkeypatch):
    monkeypatch.chdir(project.path / "stages")
    assert (describe_origin(1)["commit"], describe_origin(1)["changed"]) == (None, None)


def test_a_repository_without_a_commit_and_a_machine_without_git_are_of_no_commit(made, tmp_path, monkeypatch):
    Workspace(tmp_path).run("git", "init", "--quiet")
    assert describe_origin(1)["commit"] is None
    monkeypatch.setenv("PATH", "")
    assert describe_origin(1)["commit"] is None


def test_nothing_in_it_names_this_machine_or_a_path(project, monkeypatch):
    monkeypatch.setattr(provenance, "package_versions", dict)
    text = json.dumps({**describe_origin(1), "cpu": ""})
    assert platform.node() not in re.findall(r"[\w.-]+", text)
    assert "/" not in text


@pytest.mark.parametrize("content", ["<<<<<<< HEAD", "[]", '{"model": 1}'])
def test_a_damaged_record_is_one_line(made, content):
    Path("record").write_text(content)
    with pytest.raises(InputError, match=r"^record: .*$"):
        update_record(Path("record"), [made], threads=1)


def test_a_missing_artifact_is_one_line(made):
    with pytest.raises(InputError, match=r"^missing: no such file; `dvc repro` makes it$"):
        update_record(Path("record"), [made, Path("missing")], threads=1)


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr("lightweight.core.machine.PACKAGES", ("numpy", "no-such-package"))
    assert package_versions() == {"numpy": metadata.version("numpy"), "no-such-package": None}


def test_the_cpu_is_named_in_one_line():
    name = cpu_type()
    assert name
    assert name == " ".join(name.splitlines()).strip()


def test_the_stage_records_every_binary_artifact_and_the_table_of_scores():
    outs = [out for other in PIPELINE["stages"].values() for out in other.get("outs", [])]
    binary = {out for out in outs if isinstance(out, str) and Path(out).suffix in (".safetensors", ".onnx", ".lwz")}
    recorded = {
        path.as_posix() for path in (stage.PREPARED, *stage.MODELS, stage.OPTIMIZED, stage.COMPACT, stage.SCORES)
    }
    assert recorded == binary | {"plots/models.csv"}
    assert {
        dep for dep in PIPELINE["stages"]["provenance"]["deps"] if not dep.startswith(("stages/", "lightweight/"))
    } == recorded


def test_the_record_is_no_out_and_no_metric():
    assert not PIPELINE["stages"]["provenance"].keys() & {"outs", "metrics", "plots"}
    assert "metrics" not in PIPELINE


def test_the_stage_does_not_wait_for_torch(start_python):
    code = "import stages.provenance, sys; print(sorted({'torch', 'numpy', 'onnxruntime'} & sys.modules.keys()))"
    assert start_python(code).communicate(timeout=60) == ("[]\n", "")


TOY = """
stages:
  make:
    cmd: python make.py
    params: [threads, text]
    outs: [model]
  provenance:
    cmd: python record.py
    deps: [model]
    params: [threads]
"""
MAKE = "from pathlib import Path\nPath('model').write_text(Path('params.yaml').read_text())\n"
RECORD = """
from pathlib import Path
from lightweight.core.files import write_json
from lightweight.reporting.provenance import update_record
write_json(Path("record.json"), update_record(Path("record.json"), [Path("model")], 1))
"""


def test_an_experiment_records_its_own_model_and_leaves_dvc_lock_and_the_workspace_alone(tmp_path):
    toy = Workspace(tmp_path / "toy")
    toy.path.mkdir()
    files = {"dvc.yaml": TOY, "params.yaml": "threads: 1\ntext: a\n", "make.py": MAKE, "record.py": RECORD}
    for name, content in files.items():
        (toy.path / name).write_text(content)
    commit_all(toy)
    environment = {"PYTHONPATH": str(ROOT)}
    toy.run("dvc", "init", "--quiet")
    toy.run("dvc", "repro", **environment)
    toy.run("git", "add", ".")
    toy.run("git", "commit", "--quiet", "-m", "results")
    assert "record.json" not in (toy.path / "dvc.lock").read_text()
    before = (toy.path / "record.json").read_text()
    toy.run("dvc", "exp", "run", "--temp", "--name", "b", "--set-param", "text=b", **environment)
    assert (toy.path / "record.json").read_text() == before
    assert not toy.run("git", "status", "--porcelain")
    reference = re.search(r"refs/exps/.*/b$", toy.run("git", "for-each-ref"), re.MULTILINE)[0]
    recorded = json.loads(toy.run("git", "show", f"{reference}:record.json"))["model"]
    assert recorded["md5"] != json.loads(before)["model"]["md5"]
    assert recorded["commit"] == toy.run("git", "rev-parse", "HEAD").strip()
    assert recorded["changed"] == ["params.yaml"]
