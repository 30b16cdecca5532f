"""What `dvc repro` leaves behind is what dvc.lock says, or the command that mends it is told."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from lightweight.core.errors import InputError
from tests.contract import ROOT
from tools.verify.integrity import find_object, repair_command
from tools.verify.outputs import check_outputs, read_stages

CACHE = Path("elsewhere/cache")
FILES = ("models/a.onnx", "models/b.onnx", "data/large", "models/snapshots/1", "models/snapshots/late/2")


def digest(content: str) -> str:
    return hashlib.md5(content.encode()).hexdigest()


@pytest.fixture
def stages(tmp_path, monkeypatch) -> dict[str, dict]:
    """Outputs that hold their own names, of which one is a folder, and the cache with an object of each."""
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        write(Path(name), name)
        write(find_object(CACHE, digest(name)), name)
    outs = [{"path": path, "md5": digest(path)} for path in FILES[:3]]
    inside = [{"md5": digest(path), "relpath": path.removeprefix("models/snapshots/")} for path in FILES[3:]]
    listing = json.dumps(inside)
    write(find_object(CACHE, f"{digest(listing)}.dir"), listing)
    outs.append({"path": "models/snapshots", "md5": f"{digest(listing)}.dir"})
    return {"one": {"outs": outs[:1]}, "two": {"outs": outs[1:]}, "three": {}}


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def refusal(stages: dict[str, dict]) -> str:
    with pytest.raises(InputError) as error:
        check_outputs(stages, CACHE)
    return str(error.value)


def test_outputs_that_are_as_the_lock_says_pass_and_so_do_missing_ones_and_data(stages):
    check_outputs(stages, CACHE)
    Path("models/a.onnx").unlink()
    shutil.rmtree("models/snapshots")
    Path("data/large").write_text("changed")
    check_outputs(stages, CACHE)


@pytest.mark.parametrize("name", ["models/b.onnx", "models/snapshots/1", "models/snapshots/late/2"])
def test_an_altered_output_is_named_with_the_command_that_removes_it_and_no_object_that_is_whole(stages, name):
    Path(name).write_text("changed")
    mend = repair_command([Path(name)])
    assert refusal(stages) == f"{name}: damaged: not what dvc.lock says; to mend: {mend}"
    shutil.rmtree(CACHE)
    if "snapshots" not in name:
        assert refusal(stages).endswith(f"to mend: {mend}"), "objects that are not there are not named"


@pytest.mark.parametrize("name", ["models/b.onnx", "models/snapshots/1", "models/snapshots/late/2"])
def test_a_damaged_object_of_the_cache_is_named_beside_the_output_that_came_from_it(stages, name):
    path = find_object(CACHE, digest(name))
    for each in (Path(name), path):
        each.write_text("changed")
    line = refusal(stages)
    assert line.startswith(f"{name}: damaged: not what dvc.lock says, nor is DVC's cache; to mend: ")
    assert line.endswith(f"rm -rf {name} {path} && dvc repro")


def test_a_file_that_is_missing_from_a_folder_is_named_and_one_more_is_not(stages):
    Path("models/snapshots/more").write_text("more")
    check_outputs(stages, CACHE)
    Path("models/snapshots/1").unlink()
    assert refusal(stages).startswith("models/snapshots/1: damaged: ")


def test_a_damaged_list_of_a_folder_is_named_with_the_folder(stages):
    (path,) = CACHE.glob("files/md5/*/*.dir")
    path.write_text("[]")
    line = refusal(stages)
    assert line.startswith("models/snapshots: damaged: not what dvc.lock says, nor is DVC's cache; to mend: ")
    assert line.endswith(f"rm -rf models/snapshots {path} && dvc repro")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "text",
        "schema: '2.0'",
        "stages:",
        "stages: []",
        "stages: {train: 1}",
        "stages: {train: {outs: 1}}",
        "stages: {train: {outs: [{path: models/a.onnx}]}}",
        "stages: {train: {outs: [{path: models/a.onnx, md5: 1}]}}",
    ],
)
def test_a_lock_that_dvc_does_not_write_is_one_line_with_the_commands_that_bring_it_back(
    tmp_path, monkeypatch, content
):
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text(content)
    with pytest.raises(InputError) as error:
        read_stages(Path("dvc.lock"))
    rule = "does not say what the stages gave: `make mend` or `git checkout dvc.lock` brings it back"
    assert str(error.value) == f"dvc.lock: {rule}"


def test_the_stages_of_a_lock_are_read(tmp_path, stages):
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    assert read_stages(Path("dvc.lock")) == stages
    assert list(read_stages(ROOT / "dvc.lock"))
