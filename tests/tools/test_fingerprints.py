"""Fingerprints change with what params.yaml names, and with nothing else; without such files they are those of git."""

import os
import shutil
from pathlib import Path

import pytest

from lightweight.core.errors import InputError
from lightweight.core.yaml import read_yaml
from tests.contract import ROOT
from tools import fingerprints
from tools.fingerprints import take_fingerprints

PARAMS, NONE = "params.yaml", {"images": "none", "network": "none", "weights": "none", "teacher": "none"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose params.yaml names a folder of four images, a module, weights and a teacher."""
    monkeypatch.chdir(tmp_path)
    for name in ("sea/a.jpg", "sea/b.jpg", "wood/a.jpg", "wood/b.jpg"):
        write(tmp_path / "photos" / name, name)
    for name in ("nets.py", "w.pth", "t.safetensors"):
        write(tmp_path / name, name)
    text = (ROOT / PARAMS).read_text()
    for old, new in (
        ("dataset: digits ", "dataset: folder "),
        ("  path: null ", "  path: photos "),
        ("network: cnn\n", "network: nets:build\n"),
        ("  weights: null ", "  weights: w.pth "),
        ("  teacher: null ", "  teacher: t.safetensors "),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / PARAMS).write_text(text)
    shutil.copy2(ROOT / fingerprints.FINGERPRINTS, tmp_path)
    return tmp_path


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def taken() -> dict[str, str]:
    return take_fingerprints(Path(PARAMS), Path())


def test_the_default_has_none_and_the_file_in_git_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (PARAMS, fingerprints.FINGERPRINTS):
        shutil.copy2(ROOT / name, tmp_path)
    before = fingerprints.FINGERPRINTS.stat()
    fingerprints.main()
    assert taken() == read_yaml(fingerprints.FINGERPRINTS) == NONE
    assert fingerprints.FINGERPRINTS.stat().st_mtime_ns == before.st_mtime_ns, "not written without need"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda: write(Path("photos/sea/c.jpg"), "new"), "images"),
        (lambda: write(Path("photos/sea/b.jpg"), "sea/B.jpg"), "images"),  # of the same size
        (lambda: Path("photos/sea/b.jpg").unlink(), "images"),
        (lambda: Path("photos/sea/b.jpg").rename("photos/wood/c.jpg"), "images"),
        (lambda: write(Path("nets.py"), "other"), "network"),
        (lambda: write(Path("w.pth"), "other"), "weights"),
        (lambda: write(Path("t.safetensors"), "other"), "teacher"),
    ],
)
def test_what_changes_changes_its_fingerprint_and_no_other(project, change, key):
    before = taken()
    assert "none" not in before.values()
    change()
    after = taken()
    assert {key for key in after if after[key] != before[key]} == {key}
    fingerprints.main()
    assert read_yaml(fingerprints.FINGERPRINTS) == after
    assert fingerprints.FINGERPRINTS.read_text().startswith("# `make repro` writes this file")


def test_a_copy_elsewhere_has_the_same_fingerprints(project, tmp_path_factory, monkeypatch):
    before, copy = taken(), tmp_path_factory.mktemp("elsewhere") / "project"
    shutil.copytree(project, copy, copy_function=shutil.copy, ignore=shutil.ignore_patterns("work"))
    os.utime(copy / "photos/sea/a.jpg", (0, 0))
    monkeypatch.chdir(copy)
    assert taken() == before


def test_files_that_have_not_changed_are_not_read_again(project, monkeypatch):
    before, read = taken(), []
    real = fingerprints.hashlib.file_digest
    monkeypatch.setattr(
        fingerprints.hashlib, "file_digest", lambda file, name: read.append(file.name) or real(file, name)
    )
    assert taken() == before
    assert read == []
    write(Path("photos/sea/b.jpg"), "other")
    taken()
    assert [str(name) for name in read] == ["photos/sea/b.jpg"]


def test_a_name_that_is_no_file_has_no_fingerprint_and_a_missing_folder_is_one_line(project):
    path = Path(PARAMS)
    path.write_text(path.read_text().replace("weights: w.pth ", "weights: IMAGENET1K_V1 "))
    assert taken()["weights"] == "none"
    shutil.rmtree("photos")
    with pytest.raises(InputError, match=r"params.yaml: prepare.path = 'photos': no such folder"):
        taken()


def test_the_home_folder_is_found_behind_a_tilde(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project))
    path, before = Path(PARAMS), taken()
    for name in ("photos", "w.pth", "t.safetensors"):
        path.write_text(path.read_text().replace(f": {name} ", f": ~/{name} "))
    assert path.read_text().count("~/") == 3
    assert taken() == before
