"""Preparation of a data set: images from any source, of one size, split with a seed so that class shares stay equal."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator

from lightweight.core.errors import bad_param
from lightweight.core.params import Params
from lightweight.dataset import Dataset, Split
from lightweight.preparation.downloads import read_published
from lightweight.preparation.image_folder import Findings, read_image_folder
from lightweight.preparation.images import LabelledImages, fit_all

Share = Annotated[float, Field(gt=0, lt=1)]
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of ImageNet's training pixels, as torchvision has them
IMAGENET_STD = (0.229, 0.224, 0.225)


class PrepareParams(Params):
    """Describe section `prepare` of params.yaml."""

    dataset: Literal["digits", "mnist", "fashion_mnist", "cifar10", "folder"]
    path: str | None
    image_size: int = Field(ge=8, le=1024)
    input_size: int | None = Field(ge=8, le=1024)
    channels: Literal[1, 3]
    normalization: Literal["data", "imagenet"]
    val_fraction: Share
    test_fraction: Share

    @field_validator("input_size")
    @classmethod
    def _check_input_size(cls, value: int | None, info: ValidationInfo) -> int | None:
        """Refuse a network that takes smaller images than the data set holds."""
        if value is not None and value < info.data.get("image_size", value):
            raise ValueError(f"must be at least prepare.image_size = {info.data['image_size']}, or null")
        return value

    @field_validator("normalization")
    @classmethod
    def _check_normalization(cls, value: str, info: ValidationInfo) -> str:
        """Refuse ImageNet's statistics, which are of three channels, for grey images."""
        if value == "imagenet" and info.data.get("channels", 3) != 3:
            raise ValueError("ImageNet is in colour: needs prepare.channels = 3")
        return value


def read_dataset(params: PrepareParams, raw: Path, root: Path, seed: int) -> tuple[Dataset, list[dict[str, Any]]]:
    """Read the data set that `params` names: from `raw` or downloaded into it, or an image folder relative to `root`.

    Returns with it the rows of `Findings`: what was skipped and converted in a folder. Raises InputError that names the
    file to mend or to put in place.
    """
    findings = Findings()
    if params.dataset == "folder":
        if not params.path:
            raise bad_param("prepare.path", params.path, "the data set 'folder' needs the path of an image folder")
        parts, classes, findings = read_image_folder(root / params.path, params.image_size, params.channels)
    else:
        originals, classes = read_published(params.dataset, raw)
        size, channels = params.image_size, params.channels
        parts = {name: (fit_all(images, size, channels), labels) for name, (images, labels) in originals.items()}
    for name in ("test", "val"):
        if name not in parts:
            key = f"{name}_fraction"
            parts["train"], parts[name] = _split(*parts["train"], classes, key, getattr(params, key), seed)
    if params.normalization == "imagenet":
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    else:
        mean, std = _measure_moments(parts["train"][0])
    train, val, test = (Split(*map(torch.from_numpy, parts[name])) for name in ("train", "val", "test"))
    size = params.input_size or params.image_size
    return Dataset(train, val, test, mean, std, tuple(classes), size), findings.rows()


def _split(
    images: np.ndarray, labels: np.ndarray, classes: list[str], key: str, share: float, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Split images into two parts with equal class shares, the second with `share` of all. Raises InputError."""
    from sklearn.model_selection import train_test_split  # seconds, which checking parameters need not pay

    single = [classes[label] for label, number in enumerate(np.bincount(labels)) if number < 2]
    if single:
        raise bad_param(f"prepare.{key}", share, f"class {single[0]!r} has a single image left, which cannot be split")
    try:
        parts = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed)
    except ValueError as error:
        raise bad_param(f"prepare.{key}", share, f"{len(labels)} images cannot be split so: {error}") from None
    first, second = map(np.sort, parts)
    return (images[first], labels[first]), (images[second], labels[second])


def _measure_moments(images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Measure mean and std (C,) of pixels scaled to [0, 1], from exact integer sums; a constant channel gets std 1."""
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].ravel(), minlength=256)
        mean = (counts * values).sum() / counts.sum()
        std = np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum())
        means.append(mean)
        stds.append(std if std > 0 else 1.0)
    return torch.tensor(means, dtype=torch.float32), torch.tensor(stds, dtype=torch.float32)
