"""Augmentation transforms images within its limits; the geometry is measured on a bright block."""

import math

import pytest
import torch
from torch import Tensor

from lightweight.data.augmentation import AugmentParams, augment, random_numbers
from tests.examples import augment_params

SIDE = 28
STRENGTHS = [{"shift": 0.2}, {"rotate": 30.0}, {"scale": 0.5}, {"flip": True}, {"crop": 4}, {"cutout": 10}]


def augmented(images: Tensor, params: AugmentParams, seed: int = 0) -> Tensor:
    return augment(images, params, random_numbers(len(images), seed))


def block(rows: slice, columns: slice, number: int) -> Tensor:
    images = torch.zeros(number, 1, SIDE, SIDE, dtype=torch.uint8)
    images[:, :, rows, columns] = 255
    return images


def mass(images: Tensor) -> Tensor:
    return images.double().sum((1, 2, 3))


def centroids(images: Tensor) -> Tensor:
    """Compute x and y of the centre of mass in pixels, from the centre of the image (N, 2)."""
    position = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    pixels = images[:, 0].double()
    x, y = (pixels.sum(1) * position).sum(1), (pixels.sum(2) * position).sum(1)
    return torch.stack([x, y], 1) / mass(images)[:, None]


def test_all_strengths_zero_return_the_very_same_tensor(tiny_dataset):
    images = tiny_dataset.train.images
    assert augmented(images, augment_params()) is images


@pytest.mark.parametrize("strength", STRENGTHS, ids=lambda strength: next(iter(strength)))
def test_equal_seeds_give_equal_images_and_other_seeds_others(tiny_dataset, strength):
    images, params = tiny_dataset.train.images[:32], augment_params(**strength)
    first = augmented(images, params, 1)
    assert torch.equal(first, augmented(images, params, 1))
    assert not torch.equal(first, augmented(images, params, 2))


@pytest.mark.parametrize("strength", STRENGTHS, ids=lambda strength: next(iter(strength)))
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_dtype_are_kept_and_the_input_is_not_changed(tiny_dataset, strength, channels):
    images = tiny_dataset.train.images[:32].repeat(1, channels, 1, 1)
    before = images.clone()
    moved = augmented(images, augment_params(**strength))
    assert moved.shape == images.shape
    assert moved.dtype == torch.uint8
    assert torch.equal(images, before)
    assert not torch.equal(moved, before)


def test_all_channels_of_an_image_move_alike(tiny_dataset):
    grey, params = (
        tiny_dataset.train.images[:32],
        augment_params(shift=0.1, rotate=20.0, scale=0.2, flip=True, crop=3, cutout=6),
    )
    colour = torch.cat([grey, grey.flip(0), 255 - grey], 1)
    moved = augmented(colour, params)
    for channel in range(3):
        assert torch.equal(moved[:, [channel]], augmented(colour[:, [channel]], params))


def test_a_pure_flip_mirrors_an_image_exactly_or_leaves_it(tiny_dataset):
    images = tiny_dataset.train.images
    moved = augmented(images, augment_params(flip=True))
    same = (moved == images).flatten(1).all(1)
    mirrored = (moved == images.flip(3)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 0.4 < mirrored.double().mean() < 0.6


def test_a_pure_shift_moves_the_mass_by_at_most_its_share_of_the_side_and_keeps_it():
    images = block(slice(12, 16), slice(12, 16), number=1000)
    moved = augmented(images, augment_params(shift=0.25))
    assert mass(moved) == pytest.approx(mass(images), rel=0.005)
    distance = centroids(moved) / SIDE
    for axis in distance.T:
        assert 0.24 < axis.max() < 0.251
        assert -0.251 < axis.min() < -0.24
        assert abs(axis.mean()) < 0.02
    assert abs(torch.corrcoef(distance.T)[0, 1]) < 0.1


@pytest.mark.parametrize("flip", [False, True])
def test_a_pure_rotation_keeps_the_distance_from_the_centre_and_its_angle_is_within_the_limit(flip):
    images = block(slice(12, 16), slice(20, 24), number=1000)
    moved = augmented(images, augment_params(rotate=30.0, flip=flip))
    assert mass(moved) == pytest.approx(mass(images), rel=0.03)
    x, y = centroids(moved).T
    assert torch.hypot(x, y).numpy() == pytest.approx(8.0, abs=0.1)
    angles = torch.rad2deg(torch.atan2(y, x.abs()))
    assert 29 < angles.max() < 31
    assert -31 < angles.min() < -29
    assert bool((x < 0).any()) == flip


def test_a_pure_scale_keeps_the_centre_and_stretches_the_side_within_its_limits():
    images = block(slice(8, 20), slice(8, 20), number=1000)
    moved = augmented(images, augment_params(scale=0.5))
    assert centroids(moved).abs().max() < 0.05
    side = (mass(moved) / mass(images)).sqrt()
    assert 1.48 < side.max() < 1.51
    assert 1 / 1.51 < side.min() < 1 / 1.48
    assert abs(side.log().mean()) < 0.1 * math.log(1.5)


def test_a_random_crop_shifts_by_whole_pixels_up_to_the_padding_and_fills_with_black(tiny_dataset):
    images = tiny_dataset.train.images.clamp(min=1)
    moved = augmented(images, augment_params(crop=3))
    all_places = []
    for before, after in zip(images[:, 0], moved[:, 0], strict=True):
        padded = torch.nn.functional.pad(before, (3, 3, 3, 3))
        places = [(y, x) for y in range(7) for x in range(7) if torch.equal(padded[y : y + SIDE, x : x + SIDE], after)]
        assert len(places) == 1
        all_places += places
    counts = torch.bincount(torch.tensor([7 * y + x for y, x in all_places]), minlength=49)
    assert (counts > 0).sum() > 40, "300 draws reach nearly all of the 49 places"
    assert counts.max() < 20, "and none of them often"


@pytest.mark.parametrize("size", [1, 4, 7])
def test_cutout_blackens_one_square_around_any_pixel_clipped_at_the_borders(size):
    white = torch.full((2000, 2, SIDE, SIDE), 255, dtype=torch.uint8)
    cut = augmented(white, augment_params(cutout=size))
    assert torch.equal(cut[:, 0], cut[:, 1])
    holes = cut[:, 0] == 0
    rows, columns = holes.any(2), holes.any(1)
    assert torch.equal(holes, rows[:, :, None] & columns[:, None, :]), "a rectangle"
    for side in (rows.sum(1), columns.sum(1)):
        assert side.max() == size
        assert side.min() == size - size // 2, "its centre may be the outermost pixel"
    assert rows.any(0).all(), "every row is hit"
    assert columns.any(0).all(), "every column is hit"
    assert set(cut.unique().tolist()) == {0, 255}


def test_cutout_larger_than_the_image_blackens_all_of_it():
    white = torch.full((50, 1, SIDE, SIDE), 255, dtype=torch.uint8)
    assert not augmented(white, augment_params(cutout=4 * SIDE)).any()


def test_pixels_from_outside_are_black():
    white = torch.full((100, 1, SIDE, SIDE), 255, dtype=torch.uint8)
    moved = augmented(white, augment_params(shift=0.25))
    assert (moved[:, 0, SIDE // 2, SIDE // 2] == 255).all()
    assert (mass(moved) < mass(white)).all()
    assert moved.min() == 0
