"""How images of any size become squares: the one way for the images of a data set and for those that come later.

The two ways are those of this project and of the published networks: `Resize` and `CenterCrop` of torchvision on images
of Pillow, to the pixel, which timm's transforms are, too.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from PIL import Image, ImageOps

Interpolation = Literal["bilinear", "bicubic"]

INTERPOLATIONS = get_args(Interpolation)
MAX_SHORTER_SIDE = 2048  # pixels
KEYS = {"shorter_side", "interpolation"}


@dataclass(frozen=True)
class Resizing:
    """Bring the shorter side to `shorter_side` pixels and cut the square from the centre; None cuts before it resizes.

    The ratio of width and height is kept in either way.
    """

    shorter_side: int | None
    interpolation: Interpolation

    def apply(self, image: Image.Image, size: int) -> Image.Image:
        """Make a square of `size` pixels of an image; one that is that already stays as it is where nothing is cut."""
        method = Image.Resampling[self.interpolation.upper()]
        if self.shorter_side is None:
            return image if image.size == (size, size) else ImageOps.fit(image, (size, size), method)
        image = image.resize(self.scale(*image.size), method)
        left, top = (round((side - size) / 2) for side in image.size)  # a half to the even number, as torchvision
        return image.crop((left, top, left + size, top + size))

    def scale(self, width: int, height: int) -> tuple[int, int]:
        """Compute the width and height that an image has before it is cut; without `shorter_side` its own."""
        if self.shorter_side is None:
            return width, height
        short = min(width, height)
        return int(self.shorter_side * width / short), int(self.shorter_side * height / short)

    def describe(self, size: int) -> str:
        """Describe in a phrase how photographs become squares of `size` pixels, and by which functions."""
        if self.shorter_side is None:
            return f"cropped to a square around the centre, resized: PIL.ImageOps.fit, {self.interpolation}"
        return (
            f"resized to a shorter side of {self.shorter_side}, cut to {size}x{size} around the centre: torchvision's "
            f"Resize and CenterCrop of PIL images, {self.interpolation}"
        )

    def metadata(self) -> dict[str, Any]:
        """Return what a file says of it: an entry `resize`, and none where images are cut before they are resized."""
        return {} if self.shorter_side is None else {"resize": vars(self).copy()}


FIT = Resizing(None, "bilinear")


def parse_resizing(metadata: dict[str, Any], size: int) -> Resizing:
    """Parse what `Resizing.metadata` has written into a file whose images have `size` pixels. Raises ValueError."""
    found = metadata.get("resize")
    if found is None:
        return FIT
    if not isinstance(found, dict) or found.keys() != KEYS or found["interpolation"] not in INTERPOLATIONS:
        raise ValueError("resize must have a shorter_side and an interpolation, bilinear or bicubic")
    if type(found["shorter_side"]) is not int or not size <= found["shorter_side"] <= MAX_SHORTER_SIDE:
        raise ValueError(f"resize.shorter_side must be an integer from {size} to {MAX_SHORTER_SIDE}")
    return Resizing(**found)
