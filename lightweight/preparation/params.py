"""Section `prepare` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from lightweight.core.params import Params
from lightweight.data.image_codec import Storage

Share = Annotated[float, Field(gt=0, lt=1)]


class PrepareParams(Params):
    """Describe section `prepare` of params.yaml."""

    dataset: Literal["digits", "mnist", "fashion_mnist", "cifar10", "folder"]
    path: str | None
    image_size: int = Field(ge=8, le=1024)
    input_size: int | None = Field(ge=8, le=1024)
    channels: Literal[1, 3]
    normalization: Literal["data", "imagenet"]
    storage: Storage
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
