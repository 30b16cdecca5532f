"""The budget's search finds the cheapest file inside the drop; the latency of a file is read from a table by width."""

import itertools
from collections import Counter
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from torch import nn

from lightweight.core.errors import InputError
from lightweight.core.files import write_csv
from lightweight.core.yaml import read_yaml
from lightweight.onnx.graph import INT8_OPERATORS, list_layers
from tests.contract import ROOT
from tests.examples import exported, noise
from tools.adopt.params_file import format_value, read_text, set_values
from tools.budget import measure_layers
from tools.budget.candidate import METHODS, STEPS, Allocation, Candidate, Objective, apply
from tools.budget.layer_times import Grid, LayerTimes, list_widths, read_times
from tools.budget.measure_layers import COLUMNS, build, list_kernels
from tools.budget.search import Search
from tools.budget.trial import Trial, TrialFailed

CANDIDATES = [
    Candidate(method, allocation, steps)
    for method, allocation, steps in itertools.product(("int4", "static", "none"), get_args(Allocation), range(STEPS))
]


def made_up(candidate: Candidate) -> Trial:
    """Make up a trial: what goes costs more the more has gone; 4 bits cost accuracy, `auto` costs less."""
    bits = {"int4": 4, "static": 8, "none": 32}[candidate.method]
    drop = candidate.share**3 * (0.10 if candidate.allocation == "auto" else 0.15) + (0.005 if bits == 4 else 0)
    size, time = round(1000 * bits * (1 - candidate.share)), (2 if bits == 32 else 1) * (1 - candidate.share)
    return Trial(candidate, 1 - drop, 0.0, 1.0, drop, 1.0, size, time)


def reached(objective: Objective) -> list[Candidate]:
    """List what a search for this objective may choose."""
    return [candidate for candidate in CANDIDATES if candidate.method in METHODS[objective]]


@pytest.mark.parametrize("objective", get_args(Objective))
@pytest.mark.parametrize("max_drop", [0.0, 0.004, 0.006, 0.01, 0.03, 0.09])
def test_the_search_finds_the_cheapest_of_all_candidates_inside_the_drop_by_few_trials(objective, max_drop):
    search = Search(made_up, objective, max_drop)

    best = search.find()

    inside = [trial for trial in map(made_up, reached(objective)) if trial.drop <= max_drop]
    assert best.cost(objective) == min(trial.cost(objective) for trial in inside)
    assert best.drop <= max_drop
    assert len(search.trials) <= 17 < len(reached(objective))
    assert max(Counter(trial.candidate for trial in search.trials).values()) == 1


def test_nothing_is_found_where_no_unpruned_file_is_inside_and_no_other_is_tried():
    search = Search(lambda candidate: made_up(Candidate("int4", "uniform", candidate.steps)), "bytes", 0.001)

    assert search.find() is None
    assert [trial.candidate.steps for trial in search.trials] == [0, 0]


def test_a_trial_that_gives_no_file_is_outside_and_the_search_goes_on():
    def failing(candidate: Candidate) -> Trial:
        if candidate.steps > 9:
            raise TrialFailed("the file differs too much from its model")
        return made_up(candidate)

    search = Search(failing, "bytes", 0.09)

    best = search.find()

    assert best.candidate.steps == 9
    assert all(trial.candidate.steps <= 9 for trial in search.trials)


def test_every_trial_is_told_as_soon_as_it_is_made():
    told = []
    search = Search(made_up, "bytes", 0.01, lambda trials: told.append(len(trials)))

    search.find()

    assert told == list(range(1, len(search.trials) + 1))


@pytest.mark.parametrize("objective", get_args(Objective))
@pytest.mark.parametrize("name", ["params.yaml", "recipes/resnet20-cifar10.yaml", "recipes/keras-mnist.yaml"])
def test_the_params_of_every_candidate_are_valid_and_their_text_says_the_same(objective, name):
    text, params = (ROOT / name).read_text(), read_yaml(ROOT / name)
    for candidate in reached(objective):
        changes = candidate.changes(params, objective)
        changed = set_values(text, {key: format_value(value) for key, value in changes.items()})

        section = read_text(changed).prune

        assert section.method == "structured"
        assert (section.amount == "auto") == (candidate.allocation == "auto" and candidate.steps > 0)
        assert apply(params, changes)["prune"] == section.model_dump()
    assert params == read_yaml(ROOT / name)


def test_a_grid_gives_its_own_values_lines_between_them_and_proportions_beyond():
    grid = Grid(np.array([4, 8]), np.array([10, 20, 40]), np.array([[1.0, 2.0, 4.0], [3.0, 6.0, 12.0]]))

    assert [grid.at(4, 10), grid.at(8, 40), grid.at(4, 20)] == [1.0, 12.0, 2.0]
    assert grid.at(6, 10) == pytest.approx(2.0)
    assert grid.at(5, 30) == pytest.approx(0.75 * 3.0 + 0.25 * 9.0)
    assert grid.at(2, 5) == pytest.approx(0.25)
    assert grid.at(8, 80) == pytest.approx(24.0)


def grouped(channels: int, image_size: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 1, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, num_classes),
    )


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return exported(grouped(1, 28, 10), noise())


def test_every_layer_is_measured_at_its_own_widths_and_at_smaller_ones_and_runs_as_its_row_says(model, tmp_path):
    kernels = list(list_kernels(model))
    measured = {(name, kernel.int8): set() for name, _, kernel in kernels}
    for name, pair, kernel in kernels:
        measured[name, kernel.int8].add(pair)
        session_options = onnxruntime.SessionOptions()
        session_options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        built = build(kernel)
        onnxruntime.InferenceSession(built.SerializeToString(), session_options, providers=["CPUExecutionProvider"])
        operators = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
        assert bool(operators & INT8_OPERATORS) == kernel.int8, (name, pair)
        assert ("DequantizeLinear" in operators) is False, (name, pair)

    for name, pair in list_widths(model):
        for int8 in (False, True):
            assert pair in measured[name, int8]
            assert max(measured[name, int8]) == pair
    assert len(measured["0", True]) == 4 * 1  # 1, 2, 3, 4 quarters of what it writes; it reads one channel
    assert measured["2", True] == {(1, 4), (1, 8), (1, 12), (1, 16)}
    assert len(measured["7", False]) == 4 * 4


def test_the_table_adds_up_the_layers_of_a_file_by_their_widths(model, tmp_path):
    content = model.SerializeToString()
    cells = {(name, kernel.int8, pair): kernel for name, pair, kernel in list_kernels(model)}
    rows = [(name, int8, *pair, pair[0] * pair[1] * (1 if int8 else 10)) for name, int8, pair in cells]
    write_csv(tmp_path / "times.csv", COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in rows])
    products = [reads * writes for _, (reads, writes) in list_widths(model)]

    times = read_times(tmp_path / "times.csv")

    assert not any(layer.int8 for layer in list_layers(content))
    assert times.estimate(content) == pytest.approx(10 * sum(products))
    with pytest.raises(InputError, match="has no layer 0"):
        LayerTimes({}).estimate(content)


def test_every_computation_is_timed(model):
    kernels = [kernel for name, _, kernel in list_kernels(model) if name == "0"]

    times = measure_layers.time_kernels(kernels, threads=1)

    assert set(times) == set(kernels)
    assert all(0 < value < 1000 for value in times.values())


def test_a_missing_and_a_damaged_table_are_refused_in_a_line_that_says_what_measures_it(tmp_path):
    with pytest.raises(InputError, match="is missing: make latency-table"):
        read_times(tmp_path / "times.csv")
    rows = [("conv", True, 8, 8, 1.0), ("conv", True, 16, 16, 2.0)]  # two of the four cells
    write_csv(tmp_path / "times.csv", COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in rows])
    with pytest.raises(InputError, match="damaged: make latency-table"):
        read_times(tmp_path / "times.csv")
