"""Data augmentation of whole batches as tensors; each image has random numbers of its own in every epoch."""

import math

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from lightweight.core.params import Params

COLUMNS = ("rotate", "shift_x", "shift_y", "scale", "crop_y", "crop_x", "flip", "cutout_y", "cutout_x")


class AugmentParams(Params):
    """Describe section `train.augment`: shift (share of side), rotate (degrees), crop, cutout (pixels); 0 is off."""

    shift: float = Field(ge=0, le=0.5)
    rotate: float = Field(ge=0, le=180)
    scale: float = Field(ge=0, lt=1)
    flip: bool
    crop: int = Field(ge=0, le=1024)
    cutout: int = Field(ge=0, le=1024)

    @property
    def is_on(self) -> bool:
        """Tell whether any transformation is on."""
        return any(self.model_dump().values())


OFF = AugmentParams(shift=0, rotate=0, scale=0, flip=False, crop=0, cutout=0)


class AugmentSection(BaseModel):
    """Read the augmentation from section `train` of params.yaml; the stage `train` checks the other keys."""

    augment: AugmentParams


def random_numbers(images: int, seed: int) -> Tensor:
    """Draw what the augmentation of a whole split takes: float32 in [0, 1), (images, columns).

    A row depends on the seed and on the place of its image in the split, and not on the batch that the image is in.
    """
    return torch.rand(images, len(COLUMNS), generator=torch.Generator().manual_seed(seed))


def augment(images: Tensor, params: AugmentParams, numbers: Tensor) -> Tensor:
    """Augment a batch of uint8 images (N, C, H, W) by their `random_numbers` (N, columns).

    With everything off, returns the same tensor. The order is an affine map, a random crop after padding, a horizontal
    flip, and cutout. Pixels from outside of the image are 0.
    """
    draws = dict(zip(COLUMNS, numbers.unbind(1), strict=True))
    if params.shift or params.rotate or params.scale:
        images = _affine(images, params, draws)
    if params.crop:
        images = _crop(images, params.crop, draws)
    if params.flip:
        mirrored = draws["flip"].lt(0.5).to(images.device)
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    if params.cutout:
        images = _cutout(images, params.cutout, draws)
    return images


def _affine(images: Tensor, params: AugmentParams, draws: dict[str, Tensor]) -> Tensor:
    """Shift, rotate and scale images by a random affine map each, with bilinear sampling (Jaderberg et al. 2015).

    The limits are `shift` as a share of the side, `rotate` in degrees, and 1 / (1 + scale) to 1 + scale as the factor.
    """

    def draw(name: str, limit: float) -> Tensor:
        return (draws[name] * 2 - 1) * limit

    angle, power = draw("rotate", math.radians(params.rotate)), draw("scale", math.log1p(params.scale))
    dx, dy = draw("shift_x", 2 * params.shift), draw("shift_y", 2 * params.shift)
    zoom = power.sigmoid() / (-power).sigmoid()  # exp(power), which would be MKL's and differ between CPUs
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = torch.stack([cos, -sin, dx, sin, cos, dy], dim=1).view(len(images), 2, 3)
    grid = F.affine_grid(rows.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False).round_().to(torch.uint8)


def _crop(images: Tensor, padding: int, draws: dict[str, Tensor]) -> Tensor:
    """Pad every side by `padding` pixels of 0 and cut the old size at a random place (He et al. 2016, section 4.2)."""
    number, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    dy, dx = (_whole(draws[name], 2 * padding + 1).to(images.device) for name in ("crop_y", "crop_x"))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view of all possible crops
    return windows[torch.arange(number, device=images.device), :, dy, dx]


def _cutout(images: Tensor, size: int, draws: dict[str, Tensor]) -> Tensor:
    """Zero a square of `size` pixels around a random pixel, clipped at the borders (DeVries and Taylor 2017)."""
    inside = []
    for name, side in zip(("cutout_y", "cutout_x"), images.shape[2:], strict=True):
        start = _whole(draws[name], side)[:, None] - size // 2
        place = torch.arange(side)
        inside.append((place >= start) & (place < start + size))
    hole = (inside[0][:, :, None] & inside[1][:, None, :]).to(images.device)
    return images.masked_fill(hole[:, None], 0)


def _whole(numbers: Tensor, limit: int) -> Tensor:
    """Convert numbers in [0, 1) to integers below the limit, all with the same probability."""
    return (numbers * limit).long()
