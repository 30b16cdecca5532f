"""Drawings show every number that they are given, and no name in them can become markup."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightweight.page.confusion import class_names, count_pairs, draw_confusion, most_confused
from lightweight.page.curves import draw_curves, make_phases
from lightweight.page.drawing import Drawing, shorten
from lightweight.page.front import Point, best_points, draw_front
from lightweight.page.strips import draw_strips, own_turns
from tests.examples import made_up_latency

EVIL = """<script>"'&</script>"""


def parsed(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)


def titles(drawing: str) -> list[str]:
    return [title.text or "" for title in parsed(drawing).iter("title")]


def point(name: str, x: float, accuracy: float, kind: str = "experiment") -> Point:
    return Point(name, kind, x, accuracy, accuracy - 0.01, accuracy + 0.01, f"about {name}", f"dvc exp apply {name}")


def test_texts_are_escaped_in_every_place():
    drawing = Drawing(10, 10, EVIL)
    drawing.add("g", EVIL, EVIL, class_=EVIL)
    root = parsed(drawing.render())
    assert root.get("aria-label") == root[0].get("class") == EVIL
    assert root[0][0].text == root[0][0].tail == EVIL
    assert "script" not in {element.tag for element in root.iter()}


def test_a_text_that_is_cut_says_so_and_is_as_long_as_asked():
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"


POINTS = st.builds(point, st.text("abc", min_size=1), st.floats(1, 1e6), st.floats(0.1, 0.9))


@given(st.lists(POINTS, min_size=1, max_size=12))
def test_every_point_is_beaten_by_none_or_left_out_of_the_front(points):
    best = best_points(points)
    for one in points:
        beaten = any(
            (other.x <= one.x and other.accuracy > one.accuracy) or (other.x < one.x and other.accuracy >= one.accuracy)
            for other in points
        )
        assert beaten != any((one.x, one.accuracy) == (other.x, other.accuracy) for other in best)


def test_the_front_shows_every_model_and_experiments_copy_their_command():
    models = [point("original", 1000, 0.9, "original"), point("this run", 10, 0.88, "current"), point(EVIL, 30, 0.95)]
    root = parsed(draw_front(models, "heading", "bytes", "{:g}".format))
    groups = [group for group in root.iter("g")]
    assert {group.get("data-tip") for group in groups} == {f"{model.name}: {model.about}" for model in models}
    assert {group.get("data-copy") for group in groups} == {f"dvc exp apply {model.name}" for model in models}
    assert all(group.get("role") == "button" and group.get("tabindex") == "0" for group in groups)
    assert {"original", "this run"} <= {text.text for text in root.iter("text")}


def test_histories_follow_each_other_and_averaging_takes_the_place_of_the_end_of_training():
    def rows(first, last):
        return [
            {"epoch": str(n), "val_loss": f"{1 / n}", "val_accuracy": f"{1 - 1 / n}"} for n in range(first, last + 1)
        ]

    phases = make_phases({"train": rows(1, 10), "swa": rows(6, 10), "prune": rows(1, 4), "qat": []}, patience=0)
    assert [(phase.name, phase.offset, phase.kept) for phase in phases] == [
        ("train", 0, (10,)),
        ("swa", 0, (6, 7, 8, 9, 10)),
        ("prune", 10, (4,)),
    ]
    for drawing in draw_curves(phases):
        assert len(titles(drawing)) == 10 + 5 + 4
        assert sum("kept" in title for title in titles(drawing)) == 1 + 5 + 1
    assert draw_curves([]) == []


def test_with_patience_training_keeps_its_best_epoch():
    rows = [{"epoch": str(n), "val_loss": "1", "val_accuracy": a} for n, a in enumerate(("0.5", "0.9", "0.8"), start=1)]
    assert make_phases({"train": rows}, patience=3)[0].kept == (2,)
    assert make_phases({"train": rows}, patience=0)[0].kept == (3,)
    assert make_phases({"prune": rows}, patience=3)[0].kept == (3,), "pruning has no patience"


def test_a_loss_of_zero_is_drawn_on_a_linear_axis():
    rows = [{"epoch": "1", "val_loss": "0.0", "val_accuracy": "1.0"}]
    assert len(draw_curves(make_phases({"train": rows}, 0))) == 2


def test_there_is_a_dot_for_every_turn_of_this_measurement():
    latency = {name: own | {"cpu": "x"} for name, own in made_up_latency().items()}
    times, middle = (0.5, 2.5, 1.5, 4.0, 1.25), 1.5
    turns = [
        {"model": "optimized", "batch": "1", "round": str(n), "milliseconds": str(ms)} for n, ms in enumerate(times)
    ]
    measured = latency["optimized"]["batch_1"] | {"latency_ms": middle}
    assert len(own_turns(turns, "optimized", "1", measured)) == len(turns)
    assert own_turns(turns, "optimized", "1", measured | {"latency_ms": 2 * middle}) == [], "of another measurement"
    assert own_turns(turns, "optimized", "64", measured) == []
    first, second = draw_strips(latency | {"optimized": latency["optimized"] | {"batch_1": measured}}, turns)
    assert parsed(first).find(".//path").get("d").count("M") == len(turns)
    assert parsed(second).find(".//path") is None
    assert "1.5" in {text.text for text in parsed(second).iter("text")}


@pytest.fixture
def predictions() -> list[dict[str, str]]:
    pairs = [("cat", "cat", "dog")] * 3 + [("dog", "dog", "dog")] * 2 + [("10", "9", "10"), ("9", "9", "9")]
    return [dict(zip(("actual", "original", "predicted"), pair, strict=True)) for pair in pairs]


def test_the_confusion_counts_every_image_once(predictions):
    before, after = (count_pairs(predictions, column) for column in ("original", "predicted"))
    classes = class_names(before, after)
    assert classes == ["9", "10", "cat", "dog"]
    assert set(titles(draw_confusion(after, classes, "optimized"))) == {
        "cat taken for dog: 3", "dog right: 2", "10 right: 1", "9 right: 1",
    }  # fmt: skip
    assert most_confused(before, after) == [("cat", "dog", 0, 3), ("10", "9", 1, 0)]


def test_a_class_of_any_name_is_drawn_and_long_ones_are_cut():
    pairs = count_pairs([{"actual": EVIL * 3, "predicted": "b"}], "predicted")
    texts = {text.text for text in parsed(draw_confusion(pairs, class_names(pairs), "x")).iter("text")}
    assert "b" in texts
    assert shorten(EVIL * 3, 14) in texts
