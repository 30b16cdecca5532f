"""Every picture is a PNG of a size that a page can show, for few and many classes and whatever phases there were."""

import io
import random
from collections.abc import Callable, Iterator
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from lightweight.core.variants import VARIANTS
from lightweight.reporting import plots
from lightweight.reporting.plots import (
    draw_comparison,
    draw_confusion,
    draw_latency,
    draw_sensitivity,
    draw_sparsity,
    draw_training,
)
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


def sensitive(number: int) -> list[dict[str, str]]:
    return [
        {"layer": f"block{index}.conv", "parameters": str(10 * index), "amount": "0.9", "drop": str(index / 100)}
        for index in range(number)
    ]


def predictions(classes: int, wrong: float = 0.2) -> list[dict[str, str]]:
    """Make predictions of three images of each class, of which one in five is taken for a random class."""
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
    "sensitivity switched off": lambda: draw_sensitivity([]),
    "sensitivity of 1 layer": lambda: draw_sensitivity(sensitive(1)),
    "sensitivity of 40 layers": lambda: draw_sensitivity(sensitive(40)),
    "training of given weights": lambda: draw_training([], [], []),
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


@pytest.fixture
def figures(monkeypatch) -> Iterator[None]:
    """Let the functions return the figure that they draw instead of a PNG."""
    monkeypatch.setattr(plots, "_as_png", lambda figure: figure)
    yield
    plt.close("all")


def bars(axis: Axes) -> list[float]:
    return [patch.get_width() for patch in axis.patches]


@pytest.mark.usefixtures("figures")
def test_the_comparison_shows_every_number_of_every_variant_side_by_side():
    axes, metrics = draw_comparison(made_up_metrics()).axes, made_up_metrics()
    score = {key: np.array([metrics[name][key] for name in VARIANTS]) for key in metrics["original"]}
    assert [axis.get_subplotspec().colspan.start for axis in axes] == [0, 1, 2, 3]
    intervals, points = axes[0].collections
    assert np.array(points.get_offsets()[:, 0]) == pytest.approx(100 * score["accuracy"])
    low, high = np.array([segment[:, 0] for segment in intervals.get_segments()]).T
    assert low == pytest.approx(100 * score["accuracy_low"])
    assert high == pytest.approx(100 * score["accuracy_high"])
    for axis, whole, part in (
        (axes[1], score["size_bytes"], score["compressed_bytes"]),
        (axes[2], score["parameters"], score["nonzero_parameters"]),
        (axes[3], score["macs"], score["macs"] * score["int8_mac_share"]),
    ):
        assert bars(axis) == pytest.approx([*whole / 1e6, *part / 1e6])
    assert [label.get_text() for label in axes[0].get_yticklabels()] == list(VARIANTS)
    assert axes[0].yaxis_inverted()


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize("batches", [["batch_1"], ["batch_1", "batch_64"]])
def test_the_latency_shows_the_median_of_every_model_at_every_batch_size(batches):
    measured = made_up_latency()
    for number, entry in enumerate(measured.values()):
        for batch in ("batch_1", "batch_64"):
            entry[batch] = entry[batch] | {"latency_ms": 1.5 + number / 2}
        if "batch_64" not in batches:
            del entry["batch_64"]
    axes = draw_latency(measured).axes
    assert len(axes) == len(batches)
    for axis in axes:
        assert bars(axis) == [1.5, 2.0, 2.5]
        assert [label.get_text() for label in axis.get_yticklabels()] == list(measured)


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("recovered", [False, True])
def test_the_training_shows_the_phases_that_there_were_recovery_after_the_last_epoch(averaged, recovered):
    swa, recovery = history(6, 10) if averaged else [], history(1, 2) if recovered else []
    loss, accuracy = draw_training(history(1, 10), swa, recovery).axes
    phases = {"train": range(1, 11)}
    phases |= {"swa": range(6, 11)} if averaged else {}
    phases |= {"after pruning": range(11, 13)} if recovered else {}
    assert [text.get_text() for text in loss.get_legend().get_texts()] == list(phases)
    for axis in (loss, accuracy):
        assert [list(line.get_xdata()) for line in axis.lines] == [list(epochs) for epochs in phases.values()]
        assert len(axis.patches) == averaged
    assert loss.lines[0].get_ydata() == pytest.approx([2 / epoch for epoch in range(1, 11)])
    assert accuracy.lines[0].get_ydata() == pytest.approx([100 - 50 / epoch for epoch in range(1, 11)])


@pytest.mark.usefixtures("figures")
def test_the_sparsity_shows_the_zeros_of_every_layer_and_its_share_of_the_weights():
    zeros, weights = draw_sparsity(layers(4)).axes
    assert bars(zeros) == [0, 25, 50, 75]
    assert bars(weights) == [10, 20, 30, 40]
    assert [label.get_text() for label in zeros.get_yticklabels()] == [row["layer"] for row in layers(4)]


@pytest.mark.usefixtures("figures")
def test_the_confusion_matrix_shows_the_share_of_each_actual_class_by_row_and_the_number_of_images():
    pairs = [("a", "a"), ("a", "a"), ("a", "b"), ("a", "b"), ("b", "b"), ("c", "a")]
    (axis,) = draw_confusion([{"actual": actual, "predicted": predicted} for actual, predicted in pairs]).axes
    assert axis.images[0].get_array().tolist() == [[0.5, 0.5, 0], [0, 1, 0], [1, 0, 0]]
    cells = {text.get_position()[::-1]: text.get_text() for text in axis.texts}
    assert cells == {(0, 0): "2", (0, 1): "2", (1, 1): "1", (2, 0): "1"}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]


@pytest.mark.usefixtures("figures")
def test_the_classes_of_the_confusion_matrix_are_in_numerical_then_alphabetical_order():
    names = ["10", "9", "b", "2", "a"]
    (axis,) = draw_confusion([{"actual": name, "predicted": name} for name in names]).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["2", "9", "10", "a", "b"]


@pytest.mark.usefixtures("figures")
def test_the_sensitivity_shows_the_worst_layer_first():
    drops, parameters = draw_sensitivity(sensitive(3)).axes
    assert [bar.get_width() for bar in drops.patches] == pytest.approx([2.0, 1.0, 0.0])
    assert [bar.get_width() for bar in parameters.patches] == [20, 10, 0]
    assert [label.get_text() for label in drops.get_yticklabels()] == [f"block{index}.conv" for index in (2, 1, 0)]
