"""Statistics by which pixels are normalised: values of `prepare.normalization`, as numbers or by name."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from lightweight.core.params import Params, name_forms

Mean = Annotated[float, Field(ge=0, le=1)]
Std = Annotated[float, Field(ge=1e-6, le=100)]  # what float32 can divide by


class Moments(Params):
    """Hold the mean and standard deviation of each channel, of pixels scaled to [0, 1]."""

    mean: list[Mean]
    std: list[Std]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation (C,)."""
        return torch.tensor(self.mean, dtype=torch.float32), torch.tensor(self.std, dtype=torch.float32)


Normalization = Annotated[
    Literal["data", "imagenet"] | Moments,
    name_forms(
        "data, imagenet, or {mean: [...], std: [...]} of pixels from 0 to 1: a number of each for every channel, "
        "means from 0 to 1, deviations above 0"
    ),
]
# of ImageNet's training pixels, as torchvision has them
IMAGENET = Moments(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
