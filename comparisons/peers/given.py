"""What every peer is given: one folder per network, with the same trained weights and the same images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from comparisons.preparing import read_whole
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset import Dataset
from lightweight.data.dataset_file import load_dataset, save_dataset
from lightweight.data.sampling import balanced_sample
from lightweight.networks.model_file import load_model, save_model
from lightweight.onnx.export import export_onnx
from lightweight.onnx.logits import pixels
from lightweight.preparation.params import PrepareParams

IMAGES = 512  # for calibration, as many of each class
RECIPES = {"cnn": "mnist-structured", "resnet20": "resnet20-cifar10", "resnet18": "resnet18-cifar10-structured"}
TRACKED = Path("recipes/weights")


def find_weights(network: str, raw: Path) -> Path | None:
    """Find the trained weights of a network: those of the repository, or those that `make weights` has copied."""
    name = f"{RECIPES[network]}.safetensors"
    return next((path for folder in (TRACKED, raw) if (path := folder / name).exists()), None)


def prepare(network: str, weights: Path, raw: Path, folder: Path, test_images: int | None) -> Dataset:
    """Write what the peers read to `folder`, unless it is there, and return the data set with its test images.

    Of these, `test_images` are taken, as many of each class, or all of them.

    `original.onnx` takes raw pixels; `model.safetensors` holds the same weights; `calibration.npz` holds images float32
    (N, C, H, W), 0 to 255, and labels; `given.safetensors` is a data set of these images alone, for the library.
    """
    prepared, last = folder / "prepared.safetensors", folder / "original.onnx"
    if last.exists():
        return load_dataset(prepared)
    folder.mkdir(parents=True, exist_ok=True)
    params = load_params(Path(f"recipes/{RECIPES[network]}.yaml"), **GENERAL, prepare=PrepareParams)
    path = params.prepare.path and str(raw / Path(params.prepare.path).name)
    data = read_whole(params.prepare.model_copy(update={"path": path}), raw, params.seed)
    if test_images is not None:
        test = data.test.take(balanced_sample(data.test.labels, test_images, params.seed))
        data = replace(data, test=test)
    save_dataset(prepared, data)
    order = balanced_sample(data.train.labels, IMAGES, params.seed)
    train, val, test = (data.train.take(order) for _ in range(3))
    save_dataset(folder / "given.safetensors", replace(data, train=train, val=val, test=test))
    np.savez(folder / "calibration.npz", images=pixels(train.images[:]), labels=train.labels.numpy())
    np.savez(folder / "test.npz", images=data.test.images[:].numpy())
    file = load_model(weights, data)
    save_model(folder / "model.safetensors", file)
    onnx.save(without_names(export_onnx(file.model, data)), last)
    return data


def without_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the library writes into the metadata, in place: the peers are given any file of PyTorch's exporter."""
    del model.metadata_props[:]
    model.producer_name = "pytorch"
    return model
