"""Inputs that several tests share: small, seeded, made once. Data sets and images are not to be changed in place."""

import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - for tests that import onnxruntime first

from lightweight.execution.arithmetic import fix_instruction_set

fix_instruction_set("portable")  # as in the stages, before NumPy and torch load
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # two tests at a time: threads that spin would take the cores of the other
os.environ["LIGHTWEIGHT_PROCESSES"] = "1"  # for the same reason

import numpy as np
import pytest
import torch
from _pytest.nodeid import coerce_node_id
from PIL import Image

from lightweight.data.dataset import Dataset, Split
from lightweight.preparation.downloads import UNPACKED_MD5, read_published
from lightweight.preparation.images import fit_all
from tests.finished import Run, run_default

ROOT = Path(__file__).parent.parent
SHARING = (
    "test_disk",
    "test_kills",
    "test_bad_input",
    "test_structured_stage",
    "test_quantize_stage",
    "test_qat",
    "test_processes",
    "test_storage",
)  # their fixtures take long


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that share a run of the pipeline share a process: `make test` starts two.

    pytest-xdist 3.8 groups tests by what stands behind an @ in their ids, and cannot write it there since pytest 9.2.
    """
    for item in items if hasattr(config, "workerinput") else ():
        whole = "pipeline" if "finished" in item.fixturenames else None
        if group := whole or (item.path.stem if item.path.stem in SHARING else None):
            item._id = coerce_node_id(f"{item.nodeid}@{group}")


@pytest.fixture(scope="session")
def tiny_dataset() -> Dataset:
    """300 training, 60 validation and 60 test digits, 1x28x28, 10 classes."""
    images, labels = read_published("digits", Path())[0]["train"]
    order = np.random.default_rng(0).permutation(len(labels))[:420]
    whole = Split(torch.from_numpy(fit_all(images[order], 28, 1)), torch.from_numpy(labels[order]))
    return _dataset(whole, [300, 60, 60], tuple("0123456789"))


def _dataset(whole: Split, sizes: list[int], classes: tuple[str, ...]) -> Dataset:
    train, val, test = (whole.take(part) for part in torch.arange(len(whole)).split(sizes))
    std, mean = torch.std_mean(train.images / 255, dim=(0, 2, 3), correction=0)
    return Dataset(train, val, test, mean, std, classes, input_size=train.images.shape[2])


@pytest.fixture(scope="session")
def colour_dataset() -> Dataset:
    """20 images of noise in each split, 3x8x8, 2 classes; every channel of another brightness and contrast."""
    noise = np.random.default_rng(0).normal(size=(60, 3, 8, 8)) * [[[5]], [[20]], [[40]]] + [[[50]], [[100]], [[150]]]
    whole = Split(torch.from_numpy(noise.clip(0, 255).astype(np.uint8)), torch.arange(60) % 2)
    return _dataset(whole, [20, 20, 20], ("cat", "größer"))


@pytest.fixture(scope="session")
def mnist_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder with the four published MNIST files, unpacked; skips where this machine has none of them."""
    given = os.environ.get("LIGHTWEIGHT_DATA")
    folders = [Path(given) / "MNIST" / "raw"] if given else []
    folders.append(ROOT.parent / "shared" / "datasets" / "mnist")
    unpacked = tmp_path_factory.mktemp("raw") / "MNIST" / "raw"
    for folder in folders:
        packed = [folder / f"{name}.gz" for name in UNPACKED_MD5["mnist"]]
        if all(file.exists() for file in packed):
            unpacked.mkdir(parents=True)
            for file in packed:
                (unpacked / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
            return unpacked.parent.parent
    pytest.skip("needs the four *-ubyte.gz files of MNIST under $LIGHTWEIGHT_DATA/MNIST/raw")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The default pipeline after `dvc repro`, and what it did beside that."""
    return run_default(tmp_path_factory.mktemp("default"))


@pytest.fixture
def write_image(tmp_path: Path) -> Callable[..., Path]:
    """write_image("cat/1.png", size=(w, h), mode="RGB", value=0): an image of one value below `tmp_path`."""

    def write(name: str, size: tuple[int, int] = (8, 8), mode: str = "L", value=0, **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, value).save(path, **options)
        return path

    return write


@pytest.fixture(scope="session")
def start_python() -> Callable[..., subprocess.Popen]:
    """start_python(code, *arguments, **environment): a fresh interpreter that finds the project but no test."""

    def start(code: str, *arguments: object, **environment: str) -> subprocess.Popen:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture
def unchanged_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `start` sets holds for the process; other tests find it as it was."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
