"""A full disk, a read-only folder, flipped bits, a clock set back, two `dvc repro`: one line, and nothing is lost."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightweight.data.dataset_file import save_dataset
from tests.faults.killing import leftovers, outputs, small_project
from tests.faults.test_kills import FEW, few_images
from tests.workspace import Workspace, copy_project

needs_mount = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A small file system of its own at the folder; skips where the machine does not let us."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def prepared(tmp_path, tiny_dataset) -> Workspace:
    """A small project whose data set is ready."""
    project = copy_project(tmp_path / "project")
    project.set_params(*FEW)
    save_dataset(project.path / "data/prepared.safetensors", few_images(tiny_dataset))
    return project


def errors(output: str) -> list[str]:
    assert "Traceback" not in output
    return [line for line in output.splitlines() if line.startswith("error: ")]


@needs_mount
@pytest.mark.parametrize("kilobytes", [4, 200])
def test_a_disk_that_is_full_of_checkpoints_ends_in_one_line_and_costs_no_finished_work(prepared, kilobytes):
    work = prepared.path / "work"
    with mounted(work, f"size={kilobytes}k"):
        output = prepared.stage("train", code=1)
    assert len(errors(output)) == 1
    assert "No space left on device" in errors(output)[0]
    assert str(prepared.path) not in output
    assert not (prepared.path / "models/original.safetensors").exists()
    assert "val accuracy" in prepared.stage("train")


@needs_mount
def test_a_full_disk_for_artifacts_keeps_the_checkpoint_for_the_next_run(prepared):
    with mounted(prepared.path / "models", "size=4k"):
        output = prepared.stage("train", code=1)
        assert [file for file in (prepared.path / "models").rglob("*") if file.is_file() and file.stat().st_size] == []
    assert errors(output) == ["error: models/snapshots/0001.safetensors: not written: No space left on device"]
    shutil.rmtree(prepared.path / "models")
    assert prepared.stage("train").startswith("Resuming train at epoch ")


@needs_mount
@pytest.mark.parametrize("folder", ["work", "models"])
def test_a_read_only_folder_is_one_line_that_names_it(prepared, folder):
    with mounted(prepared.path / folder, "ro"):
        output = prepared.stage("train", code=1)
    (line,) = errors(output)
    assert line.startswith(f"error: {folder}/")
    assert line.endswith("Read-only file system")


def _flip(path: Path, *, quietly: bool) -> None:
    """Flip a bit in the middle; quietly leaves size, times and mode as they were, as a failing disk does."""
    times, mode = path.stat(), path.stat().st_mode
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(mode)
    if quietly:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _truncate(path: Path, *, quietly: bool) -> None:
    content, times, mode = path.read_bytes(), path.stat(), path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content[: len(content) // 2])
    path.chmod(mode)
    if quietly:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("damage", [_flip, _truncate])
def test_a_damaged_checkpoint_starts_over_and_ends_in_the_same_bytes(prepared, damage):
    prepared.stage("train")
    expected = (prepared.path / "models/original.safetensors").read_bytes()
    (state,) = (prepared.path / "work/train").glob("*/state.safetensors")
    damage(state, quietly=True)
    output = prepared.stage("train")
    assert output.startswith("train starts over: the checkpoint in work/train/")
    assert (prepared.path / "models/original.safetensors").read_bytes() == expected


@pytest.mark.parametrize(
    ("stage", "name", "damage"),
    [
        ("train", "data/prepared.safetensors", _flip),
        pytest.param("prune", "models/averaged.safetensors", _truncate, marks=pytest.mark.slow),
        pytest.param("train", "data/prepared.safetensors", _truncate, marks=pytest.mark.slow),
        pytest.param("prune", "models/averaged.safetensors", _flip, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_input_is_refused_even_where_its_size_and_time_are_unchanged(prepared, damage, stage, name):
    prepared.stage("train")
    prepared.stage("swa")
    damage(prepared.path / name, quietly=True)
    (line,) = errors(prepared.stage(stage, code=1))
    assert line.startswith(f"error: {name}: damaged")
    assert not (prepared.path / "models/pruned.safetensors").exists()


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Workspace:
    project = small_project(tmp_path_factory.mktemp("done") / "project")
    project.run("dvc", "repro")
    return project


@pytest.fixture
def again(done, tmp_path) -> tuple[Workspace, dict[str, str]]:
    """A finished project of one's own to damage, and what it must come back to."""
    shutil.copytree(done.path.parent, tmp_path / "copy", symlinks=True)
    project = Workspace(tmp_path / "copy/project")
    return project, outputs(project)


ARTIFACTS = ("data/prepared.safetensors", "models/original.safetensors", "models/optimized.onnx", "plots/train.csv")


@pytest.mark.slow
@pytest.mark.parametrize("damage", [_flip, _truncate, lambda path, quietly: path.unlink()], ids=["flip", "cut", "gone"])
def test_damaged_artifacts_come_back_by_dvc_repro(again, damage):
    project, expected = again
    for name in ARTIFACTS:
        damage(project.path / name, quietly=False)
    project.run("dvc", "repro")
    assert outputs(project) == expected


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 100])
def test_a_dvc_lock_that_dvc_was_killed_over_is_brought_back_by_its_copy(again, size):
    project, expected = again
    lock = project.path / "dvc.lock"
    lock.write_bytes(lock.read_bytes()[:size])
    (project.path / ".dvc/tmp/rwlock").write_text('{"data": {')
    project.run("make", "mend")
    output = project.run("dvc", "repro")
    ran = [line for line in output.splitlines() if line.startswith("Running stage")]
    assert ran == ["Running stage 'plot':"], "its entry is what was being written"
    assert outputs(project) == expected


@pytest.mark.slow
def test_a_clock_set_back_changes_nothing(again):
    """To a clock that was set back, everything that is there was made in the future."""
    project, expected = again
    future = time.time() + 10 * 365 * 86400
    for path in project.path.rglob("*"):
        if path.is_file():
            os.utime(path, (future, future))
    assert "Running stage" not in project.run("dvc", "repro")
    project.set_params(("  amount: 0.5 ", "  amount: 0.25 "))
    assert "Running stage 'prune'" in project.run("dvc", "repro")
    project.set_params(("  amount: 0.25 ", "  amount: 0.5 "))
    project.run("dvc", "repro")
    assert outputs(project) == expected
    assert not leftovers(project)


@pytest.mark.slow
def test_a_second_dvc_repro_at_the_same_time_does_no_harm(again):
    project, expected = again
    for name in ("data", "models", "plots", "metrics", ".dvc/cache"):
        shutil.rmtree(project.path / name)
    (project.path / "dvc.lock").unlink()
    running = [
        subprocess.Popen(
            ["dvc", "repro"],
            cwd=project.path,
            env=project.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=600)[0] for process in running]
    codes = [process.returncode for process in running]
    for code, text in zip(codes, said, strict=True):
        assert "Traceback" not in text
        assert code == 0 or "busy" in text or "lock" in text, text
    project.run("dvc", "repro")
    assert outputs(project) == expected
    assert not leftovers(project)
