"""The verdict claims no more than was measured: where an interval or a test sees no difference, there is none."""

import pytest

from lightweight.reporting.verdict import bytes_text, count_text, figures, times, verdict
from tests.examples import made_up_latency, made_up_metrics


def scores(**changes) -> dict:
    made = made_up_metrics()
    made["optimized"] |= changes
    return made


def latency(**changes) -> dict:
    ratio = {"speedup": 28.1, "speedup_low": 26.9, "speedup_high": 30.6, "precise": True, "verdict": "faster"} | changes
    made = made_up_latency()
    own = made["optimized"]
    return made | {"optimized": own | {"batch_1": own["batch_1"] | {"against_exported": ratio}}}


def test_a_difference_that_the_paired_test_sees_is_said_and_another_is_not():
    assert verdict(scores(mcnemar_p=0.5), {}) == "3.3 times smaller, no measurable loss of accuracy."
    assert verdict(scores(mcnemar_p=0.01), {}) == "3.3 times smaller, 4.00 points less accurate."
    assert verdict(scores(mcnemar_p=0.01, accuracy=0.97), {}) == "3.3 times smaller, 2.00 points more accurate."
    assert verdict(scores(mcnemar_p=0.5, accuracy=0.96), {}) == "3.3 times smaller, no measurable change of accuracy."


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        ({}, "28 times faster"),
        ({"precise": False}, "about 28 times faster"),
        ({"speedup": 0.5, "verdict": "slower"}, "2.0 times slower"),
        ({"speedup": 1.3, "verdict": "no difference"}, ", as fast,"),
        ({"speedup": 1.01, "verdict": "faster"}, ", as fast,"),
    ],
)
def test_speed_is_that_against_the_original_in_the_same_runtime(ratio, said):
    assert said in verdict(scores(), latency(**ratio))


def test_a_file_that_grew_is_larger():
    assert verdict(scores(size_bytes=8_000_000), {}).startswith("2.0 times larger")
    assert figures(scores(size_bytes=8_000_000), {})[0].change == "1/2.0"


def test_without_timings_there_is_no_figure_of_time():
    assert [figure.name for figure in figures(scores(), {})] == [
        "size on disk", "accuracy on test images", "multiply-accumulates",
    ]  # fmt: skip
    time = figures(scores(), latency())[2]
    assert (time.name, time.change, time.before) == ("time per call, batch 1", "28\u00d7", "1.5 ms")
    assert "26.9 to 30.6" in time.sure
    assert figures(scores(), latency(verdict="no difference"))[2].change == "no difference"


def test_bytes_and_ratios_have_three_digits_at_most():
    assert [bytes_text(value) for value in (12, 1000, 323_477, 24_989_504)] == ["12 B", "1 kB", "323 kB", "25 MB"]
    assert [times(value) for value in (77.2, 3.14, 0.25)] == ["77\u00d7", "3.1\u00d7", "1/4.0"]
    assert [count_text(value) for value in (78_400, 8_577_472, 1_800_000_000)] == ["78,400", "8.58 M", "1.8 G"]


def test_a_figure_is_worse_only_where_that_was_measured():
    assert not any(figure.worse for figure in figures(scores(mcnemar_p=0.5), latency()))
    assert [figure.worse for figure in figures(scores(mcnemar_p=0.01), latency(verdict="slower"))] == [
        False, True, True, False,
    ]  # fmt: skip
    assert figures(scores(size_bytes=8_000_000), {})[0].worse
    assert figures(scores(accuracy=0.91), {})[1].change == "\N{MINUS SIGN}4.00 points"
