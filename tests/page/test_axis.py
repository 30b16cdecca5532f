"""Axes are monotonous, hold every value, and have few round ticks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightweight.page.axis import Axis, linear_axis, log_axis, short

NUMBERS = st.floats(1e-6, 1e9)


@given(st.lists(NUMBERS, min_size=1, max_size=9))
@pytest.mark.parametrize("make", [linear_axis, log_axis])
def test_every_value_lies_between_the_ends_in_its_order(make, values):
    axis = make(values, 10, 110)
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(10 <= place <= 110 for place in places)


@given(st.lists(NUMBERS, min_size=2, max_size=9))
@pytest.mark.parametrize("make", [linear_axis, log_axis])
def test_ticks_are_few_and_inside(make, values):
    axis = make(values, 0, 1)
    ticks = axis.ticks()
    assert len(ticks) <= 7
    assert all(axis.low * (1 - 1e-6) <= tick <= axis.high * (1 + 1e-6) for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_ticks_are_round():
    assert Axis(0.5, 16.5, 0, 1).ticks() == [5, 10, 15]
    assert Axis(98.7, 100, 0, 1).ticks() == [99, 99.5, 100]
    assert Axis(0.2, 900, 0, 1, log=True).ticks() == [1, 10, 100]
    assert Axis(1e-6, 1e8, 0, 1, log=True).ticks() == pytest.approx([1e-6, 1e-3, 1, 1e3, 1e6])
    assert Axis(0.9, 11, 0, 1, log=True).ticks() == [1, 2, 5, 10]


def test_a_tenth_is_as_far_from_one_as_one_from_ten_on_a_logarithmic_axis():
    axis = Axis(0.1, 10, 0, 100, log=True)
    assert axis.at(1) == pytest.approx(50)
    assert math.isclose(axis.at(10), 100)


def test_numbers_on_axes_are_short():
    assert [short(value) for value in (0.05, 1, 1500, 25e6, 3e9)] == ["0.05", "1", "1.5k", "25M", "3G"]
