"""Data augmentation of whole batches as tensors; each image has its own random numbers."""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lightweight.core.params import Params


class AugmentParams(Params):
    """Describe section `train.augment` of params.yaml; 0 and false switch a transformation off."""

    shift: float = Field(ge=0, le=0.5)
    rotate: float = Field(ge=0, le=180)
    scale: float = Field(ge=0, lt=1)
    flip: bool
    crop: int = Field(ge=0, le=1024)
    cutout: int = Field(ge=0, le=1024)


def augment(images: Tensor, params: AugmentParams, generator: torch.Generator) -> Tensor:
    """Augment a batch of uint8 images (N, C, H, W) at random; with everything off, returns the same tensor.

    The order is an affine map, a random crop after padding, a horizontal flip, and cutout. Pixels from outside of the
    image are 0.
    """
    if params.shift or params.rotate or params.scale:
        images = _affine(images, params, generator)
    if params.crop:
        images = _crop(images, params.crop, generator)
    if params.flip:
        mirrored = torch.rand(len(images), generator=generator).lt(0.5).to(images.device)
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    if params.cutout:
        images = _cutout(images, params.cutout, generator)
    return images


def _affine(images: Tensor, params: AugmentParams, generator: torch.Generator) -> Tensor:
    """Shift, rotate and scale images by a random affine map each, with bilinear sampling (Jaderberg et al. 2015).

    The limits are `shift` as a share of the side, `rotate` in degrees, and 1 / (1 + scale) to 1 + scale as the factor.
    """
    number = len(images)

    def draw(limit: float) -> Tensor:
        return (torch.rand(number, generator=generator) * 2 - 1) * limit

    angle, dx, dy = draw(math.radians(params.rotate)), draw(2 * params.shift), draw(2 * params.shift)
    power = draw(math.log1p(params.scale))
    zoom = power.sigmoid() / (-power).sigmoid()  # exp(power), which would be MKL's and differ between CPUs
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = torch.stack([cos, -sin, dx, sin, cos, dy], dim=1).view(number, 2, 3)
    grid = F.affine_grid(rows.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False).round_().to(torch.uint8)


def _crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad every side by `padding` pixels of 0 and cut the old size at a random place (He et al. 2016, section 4.2)."""
    number, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    dy, dx = torch.randint(2 * padding + 1, (2, number), generator=generator).to(images.device)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view of all possible crops
    return windows[torch.arange(number, device=images.device), :, dy, dx]


def _cutout(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Zero a square of `size` pixels around a random pixel, clipped at the borders (DeVries and Taylor 2017)."""
    number, _, height, width = images.shape
    inside = []
    for side in (height, width):
        start = torch.randint(side, (number, 1), generator=generator) - size // 2
        place = torch.arange(side)
        inside.append((place >= start) & (place < start + size))
    hole = (inside[0][:, :, None] & inside[1][:, None, :]).to(images.device)
    return images.masked_fill(hole[:, None], 0)
