"""Images from any source become one `Dataset`: uint8, one size, split with a seed so that class shares stay equal."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator

from lightweight.core.errors import bad_param
from lightweight.core.params import Params
from lightweight.dataset import Dataset, Split
from lightweight.preparation import downloads as archives
from lightweight.preparation import image_folder as folders
from lightweight.preparation.images import fit_all

Share = Annotated[float, Field(gt=0, lt=1)]
IMAGENET = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # mean and std of its training pixels, as torchvision has them


class PrepareParams(Params):
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
    def _enlarges(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value < info.data.get("image_size", value):
            raise ValueError(f"must be at least prepare.image_size = {info.data['image_size']}, or null")
        return value

    @field_validator("normalization")
    @classmethod
    def _has_colours(cls, value: str, info: ValidationInfo) -> str:
        if value == "imagenet" and info.data.get("channels", 3) != 3:
            raise ValueError("ImageNet is in colour: needs prepare.channels = 3")
        return value


def read_dataset(params: PrepareParams, raw: Path, root: Path, seed: int) -> tuple[Dataset, list[dict[str, Any]]]:
    """The data set that `params` names: from `raw` or downloaded into it, or an image folder, relative to `root`.

    With it the findings: what was skipped and converted in a folder, see `folders.Findings`. Raises InputError that
    names the file to mend or to put in place.
    """
    findings = folders.Findings()
    if params.dataset == "folder":
        if not params.path:
            raise bad_param("prepare.path", params.path, "the data set 'folder' needs the path of an image folder")
        parts, classes, findings = folders.read(root / params.path, params.image_size, params.channels)
    else:
        parts, classes = archives.read(params.dataset, raw)
        size, channels = params.image_size, params.channels
        parts = {name: (fit_all(images, size, channels), labels) for name, (images, labels) in parts.items()}
    for name in ("test", "val"):
        if name not in parts:
            key = f"{name}_fraction"
            parts["train"], parts[name] = _split(*parts["train"], classes, key, getattr(params, key), seed)
    mean, std = map(torch.tensor, IMAGENET) if params.normalization == "imagenet" else _moments(parts["train"][0])
    splits = {
        name: Split(torch.from_numpy(images), torch.from_numpy(labels)) for name, (images, labels) in parts.items()
    }
    size = params.input_size or params.image_size
    return Dataset(**splits, mean=mean, std=std, classes=tuple(classes), input_size=size), findings.rows()


def _split(images: np.ndarray, labels: np.ndarray, classes: list[str], key: str, share: float, seed: int) -> list:
    """Two parts with equal class shares, the second with `share` of the images."""
    from sklearn.model_selection import train_test_split  # seconds, which checking parameters need not pay

    few = [classes[label] for label, number in enumerate(np.bincount(labels)) if number < 2]
    if few:
        raise bad_param(f"prepare.{key}", share, f"class {few[0]!r} has a single image left, which cannot be split")
    try:
        parts = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed)
    except ValueError as error:
        raise bad_param(f"prepare.{key}", share, f"{len(labels)} images cannot be split so: {error}") from None
    return [(images[part], labels[part]) for part in map(np.sort, parts)]


def _moments(images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std (C,) of pixels scaled to [0, 1], from exact integer sums; a constant channel gets std 1."""
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].ravel(), minlength=256)
        mean = (counts * values).sum() / counts.sum()
        std = np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum())
        means.append(mean)
        stds.append(std if std > 0 else 1.0)
    return torch.tensor(means, dtype=torch.float32), torch.tensor(stds, dtype=torch.float32)
