"""Section `prepare` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from lightweight.core.params import Params, name_forms
from lightweight.data.image_codec import Storage
from lightweight.data.normalization import Moments, Normalization
from lightweight.data.resizing import FIT, MAX_SHORTER_SIDE, Interpolation, Resizing

Share = Annotated[float, Field(gt=0, lt=1)]


class ShorterSide(Params):
    """Describe how images become squares: the shorter side is brought to so many pixels before the centre is cut."""

    shorter_side: int = Field(ge=8, le=MAX_SHORTER_SIDE)
    interpolation: Interpolation


Resize = Annotated[
    Literal["fit"] | ShorterSide,
    name_forms(
        f"fit, or {{shorter_side: 256, interpolation: bilinear}} with a side from 8 to {MAX_SHORTER_SIDE} "
        "and bilinear or bicubic"
    ),
]


class PrepareParams(Params):
    """Describe section `prepare` of params.yaml."""

    dataset: Literal["digits", "mnist", "fashion_mnist", "cifar10", "folder"]
    path: str | None
    image_size: int = Field(ge=8, le=1024)
    resize: Resize
    input_size: int | None = Field(ge=8, le=1024)
    channels: Literal[1, 3]
    normalization: Normalization
    storage: Storage
    val_fraction: Share
    test_fraction: Share

    @property
    def resizing(self) -> Resizing:
        """Return how images become squares."""
        return FIT if self.resize == "fit" else Resizing(self.resize.shorter_side, self.resize.interpolation)

    @field_validator("resize")
    @classmethod
    def _check_resize(cls, value: str | ShorterSide, info: ValidationInfo) -> str | ShorterSide:
        """Refuse to cut a square from an image that is smaller."""
        if isinstance(value, ShorterSide) and value.shorter_side < info.data.get("image_size", 0):
            raise ValueError(f"shorter_side must be at least prepare.image_size = {info.data['image_size']}")
        return value

    @field_validator("input_size")
    @classmethod
    def _check_input_size(cls, value: int | None, info: ValidationInfo) -> int | None:
        """Refuse a network that takes smaller images than the data set holds."""
        if value is not None and value < info.data.get("image_size", value):
            raise ValueError(f"must be at least prepare.image_size = {info.data['image_size']}, or null")
        return value

    @field_validator("normalization")
    @classmethod
    def _check_normalization(cls, value: str | Moments, info: ValidationInfo) -> str | Moments:
        """Refuse statistics of another number of channels than that of the images."""
        channels = info.data.get("channels")
        if value == "imagenet" and channels == 1:
            raise ValueError("ImageNet is in colour: needs prepare.channels = 3")
        if isinstance(value, Moments) and channels and {len(value.mean), len(value.std)} != {channels}:
            needed = "1 mean and 1 deviation" if channels == 1 else "3 means and 3 deviations"
            raise ValueError(f"needs {needed}, because prepare.channels = {channels}")
        return value
