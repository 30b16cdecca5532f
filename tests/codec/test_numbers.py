"""Numbers and texts come back as they were written, and cost what their probability says."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightweight.codec.numbers import FieldCoder
from lightweight.codec.range_coder import Decoder, Encoder


@given(st.lists(st.integers(0, 2**64 - 2)))
def test_naturals_come_back(values):
    encoder = Encoder()
    fields = FieldCoder(encoder)
    for value in values:
        assert fields.natural("number", value) == value
    fields = FieldCoder(Decoder(encoder.content()))
    assert [fields.natural("number") for _ in values] == values


@given(st.lists(st.integers(-(2**62), 2**62)), st.binary())
def test_numbers_of_either_sign_and_texts_come_back(values, text):
    encoder = Encoder()
    fields = FieldCoder(encoder)
    for value in values:
        fields.whole("number", value)
    fields.text("text", text)
    fields = FieldCoder(Decoder(encoder.content()))
    assert [fields.whole("number") for _ in values] == values
    assert fields.text("text") == text


def test_what_repeats_costs_almost_nothing():
    encoder = Encoder()
    fields = FieldCoder(encoder)
    for _ in range(1000):
        fields.natural("number", 17)
    assert len(encoder.content()) < 60


def test_noise_costs_its_bits():
    source, encoder = random.Random(0), Encoder()
    fields = FieldCoder(encoder)
    for _ in range(1000):
        fields.natural("number", source.randrange(256))
    assert 1000 < len(encoder.content()) < 1200


def test_a_number_without_end_is_refused():
    encoder = Encoder()
    fields = FieldCoder(encoder)
    for place in range(70):
        fields.bit(("longer", "number"), ((None, place), (None, place), (None, place)), 1)
    with pytest.raises(ValueError, match="more than 64 bits"):
        FieldCoder(Decoder(encoder.content())).natural("number")
