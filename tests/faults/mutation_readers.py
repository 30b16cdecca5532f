"""What reads each kind of file in the pipeline, and the first use of what it read."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from PIL import Image

from lightweight.core.errors import InputError
from lightweight.core.torchvision_compat import torchvision
from lightweight.data.dataset import Dataset, Split
from lightweight.data.dataset_file import load_dataset
from lightweight.evaluation.scores import evaluate_file
from lightweight.networks.factory import build
from lightweight.networks.model_file import load_model
from lightweight.onnx import session as inference
from lightweight.preparation.findings import SKIPPED
from lightweight.preparation.image_folder import FolderSource
from lightweight.training.pretrained import load_weights
from stages import check
from tests.faults.mutation_corpus import ARGUMENTS

torch.set_num_threads(1)  # a forked process has none of the threads of its parent
torchvision("datasets")  # imported once for all of them
BOUND = 2**30  # of activations: below the bound of the process, so that it is this one that is met


def read_checkpoint(content: bytes) -> None:
    load_model(_write("model.safetensors", content))


def read_dataset(content: bytes) -> None:
    dataset = load_dataset(_write("data.safetensors", content))
    for split in (dataset.train, dataset.val, dataset.test):
        for images, labels in dataset.batches(split, 64):
            logits = images.flatten(1)[:, : dataset.num_classes]
            F.cross_entropy(logits, labels)


def read_weights(content: bytes) -> None:
    _load_weights("weights.safetensors", content)


def read_pth(content: bytes) -> None:
    _load_weights("weights.pth", content)


def read_onnx(content: bytes) -> None:
    with patch.object(inference, "MAX_BYTES_PER_IMAGE", BOUND):
        evaluate_file(_write("model.onnx", content), _blank_dataset(), batch_size=16, threads=1)


def read_image(content: bytes) -> None:
    for name in ("a", "b"):
        Path(name).mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(f"{name}/whole.png")
    _write("a/mutant.png", content)
    source = FolderSource(Path(), 8, 3)
    for image in source.read(range(len(source.files))):
        for finding in image.findings:
            if finding.startswith(SKIPPED):
                raise InputError(finding)


def read_params(content: bytes) -> None:
    """`check` reads them or raises what begins with the name of the file."""
    _write("params.yaml", content)
    line = "params.yaml"
    try:
        check.read_params()
    except InputError as error:
        line = str(error)
        raise
    finally:
        assert line.startswith("params.yaml")


READERS: dict[str, Callable[[bytes], None]] = {
    "checkpoint": read_checkpoint,
    "dataset": read_dataset,
    "weights": read_weights,
    "pth": read_pth,
    "pickle": read_pth,
    "onnx": read_onnx,
    **dict.fromkeys(("png", "jpeg", "tiff", "webp", "bmp", "gif"), read_image),
    "params": read_params,
}


def _write(name: str, content: bytes) -> Path:
    Path(name).write_bytes(content)
    return Path(name)


def _load_weights(name: str, content: bytes) -> None:
    _write(name, content)
    model = build("convnet", **ARGUMENTS)
    load_weights(model, "convnet", name, Path(), new_classifier=True)


@cache
def _blank_dataset() -> Dataset:
    split = Split(torch.zeros(20, 1, 28, 28, dtype=torch.uint8), torch.arange(20) % 10)
    return Dataset(split, split, split, torch.zeros(1), torch.ones(1), tuple("0123456789"), input_size=28)
