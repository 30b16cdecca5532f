"""Phrases round without saying what is not so, and name as many layers as a reader can take in."""

import pytest

from lightweight.reporting.phrases import change_of_size, enumeration, layers, percent, share_of_weights, speed


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.0001, "less than 0.1 %"),
        (0.00086, "0.1 %"),
        (0.0123, "1.2 %"),
        (0.099, "9.9 %"),
        (0.0999, "10 %"),
        (0.5, "50 %"),
        (0.994, "99 %"),
        (0.996, "99.6 %"),
        (0.9999, "more than 99.9 %"),
        (1, "100 %"),
    ],
)
def test_no_share_is_rounded_to_nothing_or_to_the_whole(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (400, 100, "4.0 times smaller than the original"),
        (100, 104, "about as large as the original"),
        (104, 100, "about as large as the original"),
        (100, 200, "2.0 times larger than the original"),
    ],
)
def test_sizes_are_compared_where_they_noticeably_differ(before, after, text):
    assert change_of_size(before, after, "the original") == text
    assert change_of_size(before, after) == text.removesuffix(" than the original").removesuffix(" as the original")


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ([0.5, 0.5, 0.501], "half of the weights"),
        ([0.25], "25 % of the weights"),
        ([1.0], "100 % of the weights"),
        ([0.1, 0.95], "between 10 % and 95 % of each layer's weights"),
    ],
)
def test_shares_of_layers_are_one_number_where_they_agree(shares, text):
    assert share_of_weights(shares) == text


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["fc"], "the layer fc"),
        (["conv1", "conv2"], "the layers conv1 and conv2"),
        (["conv1", "conv2", "conv3"], "the layers conv1 to conv3"),
        (["conv9", "conv10", "conv11", "fc"], "the layers conv9 to conv11 and fc"),
        (["0", "3", "6"], "the layers 0, 3 and 6"),
        (["conv1", "fc2", "fc3"], "the layers conv1, fc2 and fc3"),
        (["a.conv1", "b.conv2", "c.conv3"], "the layers a.conv1, b.conv2 and c.conv3"),
        (
            [f"block{number}.conv" for number in range(20)],
            "the layers block0.conv, block1.conv, block2.conv and 17 more",
        ),
        (
            [*(f"conv{number}" for number in range(20)), "a", "b", "c", "d"],
            "the layers conv0 to conv19, a, b and 2 more",
        ),
    ],
)
def test_layers_are_named_by_the_ends_of_runs_and_of_many_only_the_first(names, text):
    assert layers(names) == text


def test_a_speed_has_its_interval_or_is_no_difference():
    faster = {"speedup": 3.5, "speedup_low": 3.25, "speedup_high": 3.75, "verdict": "faster"}
    assert speed(faster, " at batch 1") == "3.50 times [3.25, 3.75] as fast at batch 1"
    assert speed(faster | {"verdict": "no difference"}) == "as fast (no measurable difference)"


def test_a_speed_that_was_not_measured_precisely_is_never_written_without_a_warning():
    wide = {"speedup": 421.0, "speedup_low": 132.0, "speedup_high": 561.0, "precise": False, "verdict": "faster"}
    assert speed(wide, " there") == "421.00 times [132.00, 561.00] as fast there (not precise: the machine was busy)"
    wide |= {"speedup": 1.1, "speedup_low": 0.6, "speedup_high": 1.7, "verdict": "no difference"}
    assert speed(wide) == "as fast (no measurable difference; not precise: 1.10 times [0.60, 1.70])"
    assert speed(wide | {"precise": True}) == "as fast (no measurable difference)"


def test_enumerations_have_one_and():
    assert enumeration(["a"]) == "a"
    assert enumeration(["a", "b"]) == "a and b"
    assert enumeration(["a", "b", "c"]) == "a, b and c"
