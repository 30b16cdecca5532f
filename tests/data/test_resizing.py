"""Images become squares as by torchvision, to the pixel, and a file says how."""

import numpy as np
import pytest
from PIL import Image

from lightweight.core.torchvision_compat import torchvision
from lightweight.data.resizing import FIT, Resizing, parse_resizing

SIZES = [(1, 1), (7, 301), (60, 61), (61, 60), (63, 64), (64, 64), (64, 97), (333, 251), (500, 375), (400, 83)]  # w, h
BICUBIC = {"resize": {"shorter_side": 256, "interpolation": "bicubic"}}


def noise(width: int, height: int, *channels: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, *channels), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("side", "size"), [(64, 56), (64, 57), (64, 64), (71, 56), (256, 224)])
def test_pixels_are_those_of_resize_and_center_crop_of_torchvision(side, size, interpolation, mode):
    transforms = torchvision("transforms")
    steps = [transforms.Resize(side, transforms.InterpolationMode(interpolation)), transforms.CenterCrop(size)]
    for width, height in SIZES:
        image = noise(width, height, 3).convert(mode)
        expected = np.asarray(transforms.Compose(steps)(image))
        assert expected.shape[:2] == (size, size)
        assert np.array_equal(np.asarray(Resizing(side, interpolation).apply(image, size)), expected), (width, height)


def test_a_resized_image_is_as_large_as_was_computed():
    for width, height in SIZES:
        assert min(Resizing(64, "bilinear").scale(width, height)) == 64
        assert FIT.scale(width, height) == (width, height)


def test_a_file_says_how_and_nothing_of_what_is_the_default():
    assert FIT.metadata() == {}
    assert Resizing(256, "bicubic").metadata() == BICUBIC
    for resizing in (FIT, Resizing(256, "bicubic")):
        assert parse_resizing(resizing.metadata(), 224) == resizing


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"shorter_side": 223}, "resize.shorter_side must be an integer from 224 to 2048"),
        ({"shorter_side": 10**9}, "resize.shorter_side must be an integer from 224 to 2048"),
        ({"shorter_side": 256.0}, "resize.shorter_side must be an integer from 224 to 2048"),
        ({"interpolation": "nearest"}, "resize must have a shorter_side and an interpolation, bilinear or bicubic"),
        ({"interpolation": []}, "resize must have a shorter_side and an interpolation, bilinear or bicubic"),
        ({"crop": 1}, "resize must have a shorter_side and an interpolation, bilinear or bicubic"),
    ],
)
def test_what_no_file_of_this_project_says_is_refused(changed, rule):
    with pytest.raises(ValueError, match=rule):
        parse_resizing({"resize": BICUBIC["resize"] | changed}, 224)
    with pytest.raises(ValueError, match="resize must have"):
        parse_resizing({"resize": "fit"}, 224)
