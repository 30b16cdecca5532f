"""A batch is augmented by one affine map per image, all of them in one call: no per-sample Python.

Spatial transformer sampling (Jaderberg et al. 2015): rotation, scale, shift and mirror are one 2x3 matrix.
"""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lightweight.params import Params


class AugmentParams(Params):
    shift: float = Field(ge=0, le=0.5)
    rotate: float = Field(ge=0, le=180)
    scale: float = Field(ge=0, lt=1)
    flip: bool


def augment(images: Tensor, params: AugmentParams, generator: torch.Generator) -> Tensor:
    """uint8 (N, C, H, W) to uint8 of the same shape; all strengths 0 return the very same images.

    Each image draws its own shift (share of its side), angle (degrees), scale (1 / (1 + scale) to 1 + scale)
    and mirror image. Pixels from outside are 0.
    """
    if not (params.shift or params.rotate or params.scale or params.flip):
        return images
    number = len(images)

    def draw(limit: float) -> Tensor:
        return (torch.rand(number, generator=generator) * 2 - 1) * limit

    angle, dx, dy = draw(math.radians(params.rotate)), draw(2 * params.shift), draw(2 * params.shift)
    zoom = torch.exp(draw(math.log1p(params.scale)))
    mirror = torch.sign(draw(1.0)) if params.flip else torch.ones(number)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = torch.stack([cos * mirror, -sin, dx, sin * mirror, cos, dy], dim=1).view(number, 2, 3)
    grid = F.affine_grid(rows.to(images.device), list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, align_corners=False)
    return moved.round_().to(torch.uint8)
