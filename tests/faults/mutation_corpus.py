"""Small valid files of every kind that the pipeline reads; the same bytes on every machine but for ONNX."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from lightweight.data.dataset import Dataset, Split
from lightweight.data.dataset_file import save_dataset
from lightweight.networks.factory import build
from lightweight.networks.model_file import ModelFile, save_model
from lightweight.networks.pruned_shapes import changed_shapes
from tests.contract import ROOT
from tests.examples import prune_in_place

ARGUMENTS: dict[str, Any] = {"channels": 1, "image_size": 28, "num_classes": 10, "small_stem": False}
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (30, 28, 28), dtype=np.uint8)
PICTURE = RANDOM.integers(0, 256, (24, 20, 3), dtype=np.uint8)
PICTURES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "png": [(mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
    "jpeg": [("L", {}), ("RGB", {}), ("CMYK", {}), ("RGB", {"progressive": True})],
    "tiff": [("RGB", {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")],
    "webp": [("RGB", {}), ("RGBA", {"lossless": True})],
    "bmp": [("1", {}), ("P", {}), ("RGB", {})],
    "gif": [("P", {}), ("L", {"interlace": False})],
}


def write_corpus(folder: Path, onnx_files: dict[str, bytes]) -> None:
    """Write the files as `KIND/NAME` below `folder`."""
    for kind in ("checkpoint", "dataset"):
        (folder / kind).mkdir(parents=True)
    for name in ("convnet", "tiny"):
        notes = {"epoch": 1, "lr": 0.1}
        save_model(folder / "checkpoint" / name, ModelFile(_network(name), name, ARGUMENTS, notes))
    save_model(folder / "checkpoint" / "pruned", _pruned())
    save_dataset(folder / "dataset" / "noise", _dataset())
    for kind, name, content in [*_weights(), *_pictures()]:
        _put(folder / kind / name, content)
    for name, content in onnx_files.items():
        _put(folder / "onnx" / name, content)
    for path in [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))[:2]]:
        _put(folder / "params" / path.name, path.read_bytes())


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _network(name: str) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(name, **ARGUMENTS)


def _pruned() -> ModelFile:
    dense, narrower = _network("tiny"), _network("tiny")
    prune_in_place(narrower, method="structured", layers="conv", amount=0.75)
    return ModelFile(narrower, "tiny", ARGUMENTS, {}, changed_shapes(dense, narrower))


def _dataset() -> Dataset:
    images = torch.from_numpy(PIXELS[:, None, 8:20, 8:20].copy())
    whole = Split(images, torch.arange(30) % 10)
    parts = [whole.take(torch.arange(start, start + 10)) for start in (0, 10, 20)]
    return Dataset(*parts, torch.tensor([0.5]), torch.tensor([0.3]), tuple("0123456789"), input_size=12)


def _weights() -> Iterator[tuple[str, str, bytes]]:
    state = {name: tensor.contiguous() for name, tensor in _network("convnet").state_dict().items()}
    yield "weights", "convnet", save(state)
    for kind, content, zipped in (("pth", {"state_dict": state, "epoch": 3}, True), ("pickle", state, False)):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        yield kind, "convnet", file.getvalue()


def _pictures() -> Iterator[tuple[str, str, bytes]]:
    turned = Image.Exif()
    turned[0x0112] = 6
    for kind, variants in PICTURES.items():
        for number, (mode, options) in enumerate(variants):
            deep = Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 257)
            image = deep if mode == "I;16" else Image.fromarray(PICTURE).convert(mode)
            file = io.BytesIO()
            image.save(file, kind.upper(), exif=turned, **options)
            yield kind, f"{number} {mode}", file.getvalue()
