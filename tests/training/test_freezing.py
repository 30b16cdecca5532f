"""Freezing excludes exactly the named modules and parameters from training."""

import pytest

from lightweight.core.errors import InputError
from lightweight.training.freezing import freeze
from tests.examples import BNNET, new


def frozen_parameters(*patterns: str) -> list[str]:
    model = new(BNNET)
    freeze(model, list(patterns))
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        ([], []),
        (["0"], ["0.weight"]),
        (["1.weight"], ["1.weight"]),
        (["[01]"], ["0.weight", "1.weight", "1.bias"]),
        (["*.bias"], ["1.bias", "4.bias", "5.bias", "10.bias", "12.bias"]),
        (["1?", "4.weight"], ["4.weight", "10.weight", "10.bias", "12.weight", "12.bias"]),
    ],
)
def test_patterns_name_modules_and_parameters(patterns, frozen):
    assert frozen_parameters(*patterns) == frozen


def test_frozen_modules_are_returned_to_be_kept_in_evaluation_mode():
    model = new(BNNET)
    assert freeze(model, ["1"]) == [model[1]]
    assert freeze(model, ["1.bias"]) == []


def test_a_module_stands_for_all_inside_it():
    model = new("resnet20")
    freeze(model, ["blocks"])
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names == ["conv.weight", "norm.weight", "norm.bias", "fc.weight", "fc.bias"]


@pytest.mark.parametrize("pattern", ["conv", "", "0.", "13"])
def test_a_pattern_that_names_nothing_is_refused_with_the_parts(pattern):
    rule = "names no part of the network; its parts are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"
    with pytest.raises(InputError) as error:
        freeze(new(BNNET), [pattern])
    assert str(error.value) == f"params.yaml: train.freeze = {pattern!r}: {rule}"


def test_freezing_everything_is_refused():
    with pytest.raises(InputError, match=r"train.freeze = \['\*'\]: must leave something to train"):
        freeze(new(BNNET), ["*"])
