"""The gallery shows which images were gained and lost, the surest first, and at most forty."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lightweight.page.gallery import MAX_IMAGES, MAX_SIDE, data_uri, make_gallery, share_out


def row(actual: str, original: str, predicted: str, confidence: float = 0.5, before: float = 0.5) -> dict[str, str]:
    return {
        "actual": actual, "original": original, "predicted": predicted,
        "confidence": f"{confidence}", "original_confidence": f"{before}",
    }  # fmt: skip


def read(numbers: list[int]) -> np.ndarray:
    """Make images whose pixels are their numbers."""
    return np.stack([np.full((1, 4, 4), number, dtype=np.uint8) for number in numbers])


def decode(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def numbers(shown) -> list[int]:
    return [int(decode(image.uri)[0, 0]) for image in shown]


def test_gained_and_lost_images_are_the_ones_that_only_one_model_gets_right():
    rows = [row("1", "1", "1"), row("1", "2", "1"), row("1", "1", "3"), row("1", "2", "3"), row("1", "1", "2", 0.9)]
    gallery = make_gallery(rows, read)
    assert (numbers(gallery.gained), numbers(gallery.lost)) == ([1], [4, 2]), "the surest first"
    assert (gallery.num_gained, gallery.num_lost, gallery.close) == (1, 2, [])
    assert gallery.lost[0].label == "1: original says 1, optimized 2"


def test_where_all_agree_those_are_shown_whose_confidence_fell_most():
    rows = [row("1", "1", "1", 0.9, 0.9), row("1", "1", "1", 0.5, 0.99), row("1", "1", "1", 0.9, 0.95)]
    gallery = make_gallery(rows, read)
    assert numbers(gallery.close) == [1, 2, 0]
    assert (gallery.gained, gallery.lost) == ([], [])


@pytest.mark.parametrize(("gained", "lost"), [(100, 100), (3, 100), (100, 3), (0, 100), (5, 5)])
def test_at_most_forty_are_shown_and_no_place_is_left_while_there_are_more(gained, lost):
    shares = share_out(gained, lost, MAX_IMAGES)
    assert sum(shares) == min(gained + lost, MAX_IMAGES)
    assert min(gained, MAX_IMAGES // 2) <= shares[0] <= gained
    assert min(lost, MAX_IMAGES // 2) <= shares[1] <= lost


def test_predictions_of_an_earlier_version_show_nothing():
    assert make_gallery([{"actual": "1", "predicted": "2"}], read).num_lost == 0
    assert make_gallery([], read).close == []


def test_small_images_keep_every_pixel_and_large_ones_become_small():
    colour = np.random.default_rng(0).integers(0, 256, (3, 9, 9), dtype=np.uint8)
    assert (decode(data_uri(colour)) == np.moveaxis(colour, 0, 2)).all()
    assert max(decode(data_uri(np.zeros((1, 224, 100), dtype=np.uint8))).shape) == MAX_SIDE
