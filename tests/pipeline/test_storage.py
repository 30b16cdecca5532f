"""Data sets in shards: the stages give the same bytes as on one file, and preparing goes on where it was killed."""

import hashlib
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faults.test_disk import mounted, needs_mount
from tests.pipeline.test_processes import SMALL, STAGES, hashes
from tests.workspace import Workspace, copy_project

FOLDER = (
    ("  dataset: digits ", "  dataset: folder "),
    ("  image_size: 28 ", "  image_size: 16 "),
    ("  storage: pixels ", "  storage: png "),
)
MEND = "`dvc checkout` brings it back, or `dvc repro` makes it anew"


def photographs(folder: Path, number: int, size: int = 20) -> str:
    """Smooth noise in two classes of different brightness, and a file that is no image."""
    generator = np.random.default_rng(0)
    for index in range(number):
        path = folder / f"class{index % 2}" / f"{index:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 128, (size, size), dtype=np.uint8) + np.uint8(100 * (index % 2))
        Image.fromarray(pixels).save(path, compress_level=0)
    (folder / "class0/broken.png").write_bytes(b"no image")
    return str(folder)


def make_project(folder: Path, images: str, *changes: tuple[str, str]) -> Workspace:
    project = copy_project(folder / "project")
    project.set_params(*SMALL, *FOLDER, ("  path: null  ", f"  path: {images}  "), *changes)
    return project


def digests(project: Workspace) -> dict[str, str]:
    files = [project.path / "data/prepared.safetensors", *(project.path / "data/prepared").iterdir()]
    return {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    return photographs(tmp_path_factory.mktemp("images"), 160)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, images) -> Workspace:
    """A project on PNG images in a shard, after training."""
    project = make_project(tmp_path_factory.mktemp("trained"), images)
    for name in ("prepare", "train"):
        project.stage(name)
    return project


@pytest.fixture(scope="module")
def stored(tmp_path_factory, images) -> Workspace:
    """A project on PNG images in a shard, after all stages by one process without workers."""
    project = make_project(tmp_path_factory.mktemp("stored"), images)
    for name in ("prepare", *STAGES):
        project.stage(name, LIGHTWEIGHT_WORKERS="0")
    return project


@pytest.mark.slow
def test_every_artifact_has_the_bytes_of_one_file_of_pixels(stored, tmp_path, images):
    project = make_project(tmp_path, images, ("  storage: png ", "  storage: pixels "))
    for name in ("prepare", *STAGES):
        project.stage(name)
    assert not list((project.path / "data/prepared").glob("*.safetensors"))
    assert hashes(project) == hashes(stored)


@pytest.mark.slow
def test_neither_processes_nor_workers_nor_the_scratch_folder_enter_a_result(stored, tmp_path, images):
    project = make_project(tmp_path, images)
    for name in ("prepare", *STAGES):
        elsewhere = {
            "LIGHTWEIGHT_PROCESSES": "2",
            "LIGHTWEIGHT_WORKERS": "2",
            "LIGHTWEIGHT_WORK": str(tmp_path / "work"),
        }
        project.stage(name, **elsewhere)
    assert hashes(project) == hashes(stored)
    assert digests(project) == digests(stored)
    assert (tmp_path / "work/cost").is_dir()
    assert not (project.path / "work/train").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a stage ends with its parent on Linux only")
def test_preparing_goes_on_where_it_was_killed(tmp_path):
    """Photographs that take milliseconds each, so that a record of the journal does not hold all of them."""
    path = tmp_path / "images"
    for number in range(400):
        file = path / f"class{number % 2}" / f"{number:05}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if number < 8:
            colours = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(colours).resize((900, 900)).save(file)
        else:
            file.hardlink_to(path / f"class{number % 2}" / f"{number % 8:05}.png")
    small = ("  image_size: 16 ", "  image_size: 64 ")
    expected = make_project(tmp_path / "expected", str(path), small)
    expected.stage("prepare")
    project = make_project(tmp_path / "killed", str(path), small)
    slow = project.environment | {"LIGHTWEIGHT_WORKERS": "0"}
    command = [sys.executable, "-m", "stages.prepare"]
    with subprocess.Popen(command, cwd=project.path, env=slow, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not any(file.stat().st_size for file in project.path.glob("work/prepare/*/journal.jsonl")):
            assert time.monotonic() < deadline
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (project.path / "data/prepared.safetensors").exists()
    output = project.stage("prepare")
    assert re.search(r"Resuming prepare at image [1-9][\d,]* of 400", output)
    assert digests(project) == digests(expected)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda shard: shard.unlink(), "data/prepared/0000.safetensors: no such file; " + MEND),
        (
            lambda shard: shard.write_bytes(shard.read_bytes()[:-1] + b"\x00"),
            "data/prepared/0000.safetensors: damaged: image 159 is not the one that was prepared; " + MEND,
        ),
    ],
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_damaged_shard_ends_a_stage_in_one_line(trained, tmp_path, damage, message, processes):
    project = Workspace(shutil.copytree(trained.path, tmp_path / "project"))
    damage(project.path / "data/prepared/0000.safetensors")
    output = project.stage("evaluate", code=1, LIGHTWEIGHT_PROCESSES=processes)
    assert error(output) == f"error: {message}"


@pytest.fixture
def larger(tmp_path) -> Workspace:
    """A project on a folder of 201 files, of which 200 become images of 64x64."""
    path = photographs(tmp_path / "images", 200, size=64)
    return make_project(tmp_path, path, ("  image_size: 16 ", "  image_size: 64 "))


def error(output: str) -> str:
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in output
    return line


@needs_mount
def test_a_scratch_folder_that_is_too_small_is_told_before_anything_is_read(larger):
    with mounted(larger.path / "work", "size=100k"):
        line = error(larger.stage("prepare", code=1))
    assert re.fullmatch(r"error: work/prepare: .* needed for 201 images, .* free; LIGHTWEIGHT_WORK names .*", line)
    assert not (larger.path / "data/prepared.safetensors").exists()


@needs_mount
def test_a_disk_that_is_full_of_shards_is_one_line_and_the_next_run_goes_on(larger):
    with mounted(larger.path / "data", "size=100k"):
        line = error(larger.stage("prepare", code=1))
        assert list((larger.path / "data").rglob("*.safetensors")) == []
    assert line == "error: data/prepared/0000.safetensors: not written: No space left on device"
    assert "Resuming prepare at the end" in larger.stage("prepare")
    assert (larger.path / "data/prepared.safetensors").exists()


def test_a_changed_image_is_read_again_though_a_finished_run_was_not_recorded(larger, tmp_path):
    larger.stage("prepare")
    before, image = digests(larger), tmp_path / "images/class0/00000.png"
    assert "Resuming prepare at the end" in larger.stage("prepare")
    assert digests(larger) == before
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image, compress_level=0)
    assert "Resuming" not in larger.stage("prepare")
    assert digests(larger) != before


def test_a_scratch_folder_on_a_disk_that_is_not_there_is_one_line(tmp_path, images):
    project = make_project(tmp_path, images)
    (tmp_path / "disk").symlink_to("/mnt/not_there")
    output = project.stage("prepare", code=1, LIGHTWEIGHT_WORK=str(tmp_path / "disk"))
    assert output == f"error: {tmp_path / 'disk'}: File exists\n"
