"""Every picture is a PNG of a size that a page can show, for few and many classes and whatever phases there were."""

import io
import random
from collections.abc import Callable
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from lightweight.plotting import draw_comparison, draw_confusion, draw_latency, draw_sparsity, draw_training
from tests.examples import made_up_latency, made_up_metrics


def history(first: int, last: int) -> list[dict[str, str]]:
    return [
        {"epoch": str(epoch), "train_loss": str(2 / epoch), "val_loss": "1.5", "val_accuracy": str(1 - 0.5 / epoch)}
        for epoch in range(first, last + 1)
    ]


def layers(number: int) -> list[dict[str, str]]:
    return [
        {"layer": f"block{index}.conv", "weights": str(100 * (index + 1)), "sparsity": str(index / number)}
        for index in range(number)
    ]


def predictions(classes: int, wrong: float = 0.2) -> list[dict[str, str]]:
    """Three images of each class, one in five taken for a random class."""
    random_class, names = random.Random(0), [f"class {number}" for number in range(classes)]
    return [
        {"actual": name, "predicted": random_class.choice(names) if random_class.random() < wrong else name}
        for name in names
        for _ in range(3)
    ]


PICTURES: dict[str, Callable[[], bytes]] = {
    "comparison": lambda: draw_comparison(made_up_metrics()),
    "latency": lambda: draw_latency(made_up_latency()),
    "training": lambda: draw_training(history(1, 10), history(6, 10), history(1, 2)),
    "training without averaging": lambda: draw_training(history(1, 10), [], history(1, 2)),
    "training without recovery": lambda: draw_training(history(1, 10), history(6, 10), []),
    "training alone": lambda: draw_training(history(1, 1), [], []),
    "sparsity of 1 layer": lambda: draw_sparsity(layers(1)),
    "sparsity of 40 layers": lambda: draw_sparsity(layers(40)),
    "confusion of 2 classes": lambda: draw_confusion(predictions(2)),
    "confusion of 10 classes": lambda: draw_confusion(predictions(10)),
    "confusion of 100 classes": lambda: draw_confusion(predictions(100)),
}


@cache
def drawn(name: str) -> bytes:
    return PICTURES[name]()


def opened(picture: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image.convert("RGB")


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_a_png_of_a_size_that_a_page_can_show(name):
    picture = drawn(name)
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    image = opened(picture)
    assert 400 <= image.width <= 2600
    assert 150 <= image.height <= 2600
    assert image.getextrema() != ((255, 255),) * 3
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", ["comparison", "latency", "training", "sparsity of 1 layer", "confusion of 2 classes"])
def test_equal_inputs_give_equal_pictures(name):
    assert PICTURES[name]() == drawn(name)


@pytest.mark.parametrize(
    ("key", "factor"),
    [
        ("accuracy", 0.99),
        ("accuracy_low", 0.98),
        ("accuracy_high", 1.02),
        ("size_bytes", 0.8),
        ("compressed_bytes", 0.8),
        ("parameters", 0.8),
        ("nonzero_parameters", 0.8),
        ("macs", 0.8),
        ("int8_mac_share", 0.8),
    ],
)
def test_the_comparison_shows_every_number(key, factor):
    metrics = made_up_metrics()
    metrics["optimized"][key] *= factor
    assert draw_comparison(metrics) != drawn("comparison")


def test_the_latency_shows_every_batch_size():
    measured = made_up_latency()
    for entry in measured.values():
        del entry["batch_64"]
    one, two = opened(draw_latency(measured)), opened(drawn("latency"))
    assert two.width == pytest.approx(2 * one.width, abs=2)
    assert two.height == one.height


@pytest.mark.parametrize(("predicted", "direction"), [(("a", "b"), 1), (("b", "a"), -1)])
def test_right_predictions_colour_the_diagonal_and_wrong_ones_the_other_cells(predicted, direction):
    rows = [{"actual": actual, "predicted": guess} for actual, guess in zip(("a", "b"), predicted, strict=True)]
    pixels = np.asarray(opened(draw_confusion(rows))).astype(int)
    y, x = np.nonzero(pixels[..., 2] - pixels[..., 0] > 50)  # blue
    assert direction * np.corrcoef(x, y)[0, 1] > 0.5
