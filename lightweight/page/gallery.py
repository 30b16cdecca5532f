"""The images on which two models disagree, as PNG inside the page."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

MAX_IMAGES = 40
MAX_SIDE = 64  # pixels, to which larger images are brought
FEW = 8  # images that are shown where none was gained or lost

Row = Mapping[str, str]  # of plots/predictions.csv
Reader = Callable[[list[int]], np.ndarray]  # of images uint8 (n, C, H, W) of the test split by number


@dataclass(frozen=True)
class Shown:
    """Hold an image as a data URI, with what both models say of it."""

    uri: str
    row: Row

    @property
    def label(self) -> str:
        """Describe the image for those who cannot see it."""
        row = self.row
        return f"{row['actual']}: original says {row['original']}, optimized {row['predicted']}"


@dataclass(frozen=True)
class Gallery:
    """Hold images that only the optimized file gets right (`gained`), that only the original does, and close calls.

    There are close calls only where nothing was gained or lost: the images whose confidence fell most.
    """

    gained: Sequence[Shown]
    lost: Sequence[Shown]
    close: Sequence[Shown]
    num_gained: int
    num_lost: int


def make_gallery(rows: Sequence[Row], read: Reader) -> Gallery:
    """Choose the images by the rows of all test images, at most 40, those of which the models were surest first."""
    if not rows or "original" not in rows[0]:  # of an earlier version
        return Gallery([], [], [], 0, 0)
    right = [(row["original"] == row["actual"], row["predicted"] == row["actual"]) for row in rows]
    sure = [float(row["confidence"]) + float(row["original_confidence"]) for row in rows]
    fallen = [float(row["original_confidence"]) - float(row["confidence"]) for row in rows]
    gained = _largest([number for number, pair in enumerate(right) if pair == (False, True)], sure)
    lost = _largest([number for number, pair in enumerate(right) if pair == (True, False)], sure)
    close = [] if gained or lost else _largest(list(range(len(rows))), fallen)[:FEW]
    shares = share_out(len(gained), len(lost), MAX_IMAGES)
    chosen = gained[: shares[0]], lost[: shares[1]], close
    shown = [_show(numbers, rows, read) for numbers in chosen]
    return Gallery(shown[0], shown[1], shown[2], len(gained), len(lost))


def share_out(first: int, second: int, places: int) -> tuple[int, int]:
    """Share places out to two lists: half each, and what one does not need to the other."""
    own = min(first, max(places // 2, places - second))
    return own, min(second, places - own)


def _largest(numbers: list[int], values: Sequence[float]) -> list[int]:
    return sorted(numbers, key=lambda number: (-values[number], number))


def _show(numbers: list[int], rows: Sequence[Row], read: Reader) -> list[Shown]:
    images: Sequence[np.ndarray] = list(read(numbers)) if numbers else []
    return [Shown(data_uri(image), rows[number]) for number, image in zip(numbers, images, strict=True)]


def data_uri(image: np.ndarray[Any, Any]) -> str:
    """Write an image uint8 (C, H, W) of one or three channels as a PNG, larger ones in `MAX_SIDE` pixels."""
    picture = Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, 2))
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
