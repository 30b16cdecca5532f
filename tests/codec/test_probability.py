"""Probabilities are integers: the tables are those of the logistic function, and both sides learn the same."""

import hashlib
import math
import random

import pytest

from lightweight.codec.probability import LARGEST, LEAST, ONE, UNIT, Predictor, squash_table, stretch_table


def test_squashing_is_the_logistic_function():
    for odds in range(-LARGEST, LARGEST + 1, 7):
        exact = ONE / (1 + math.exp(-odds / UNIT))
        assert squash_table()[odds + LARGEST] == pytest.approx(min(max(exact, LEAST), ONE - LEAST), abs=0.51)


def test_stretching_is_its_inverse():
    for part in range(40, 4056):
        probability = squash_table()[stretch_table()[part] + LARGEST]
        assert probability == pytest.approx(16 * part + 8, abs=70)


def test_the_tables_are_frozen_because_files_depend_on_them():
    content = repr((squash_table(), stretch_table())).encode()
    assert hashlib.sha256(content).hexdigest() == "b585a9115ced4e6d440a64a270dc28645170e9073dcd6f935b6f99e567d65463"


def test_a_bit_that_always_comes_becomes_certain():
    predictor = Predictor()
    for _ in range(2000):
        predictor.predict("kind", ("a", "b"))
        predictor.update(1)
    assert predictor.predict("kind", ("a", "b")) > 0.995 * ONE


def test_the_context_that_tells_gets_the_weight():
    predictor, source = Predictor(), random.Random(0)
    for _ in range(3000):
        bit = source.randrange(2)
        predictor.predict("kind", (bit, source.randrange(2)))  # the first context is the answer, the second is noise
        predictor.update(bit)
    telling, noise = predictor.weights["kind"]
    assert telling > 2 * abs(noise)
    assert predictor.predict("kind", (1, 0)) > 0.97 * ONE
    assert predictor.predict("kind", (0, 0)) < 0.03 * ONE


def test_a_probability_is_never_0_or_1():
    predictor = Predictor()
    for _ in range(20_000):
        assert LEAST <= predictor.predict("kind", (None,)) <= ONE - LEAST
        predictor.update(0)
