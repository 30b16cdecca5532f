"""The tables of comparisons/results are what the figures beside them say, and say what the project claims."""

import pandas as pd
import pytest

from comparisons import pruning_report, quantization_report
from tests.contract import ROOT

PRUNING, QUANTIZATION = (pd.read_csv(ROOT / module.FIGURES) for module in (pruning_report, quantization_report))


def accuracy(**values: str | float | bool) -> float:
    """Average the accuracies over seeds of our own pruning with these values in these columns."""
    chosen = PRUNING[(PRUNING[["tool", *values]] == ["ours", *values.values()]).all(axis=1)]
    assert len(chosen) == 3
    return chosen["accuracy"].mean()


@pytest.mark.parametrize(("module", "figures"), [(pruning_report, PRUNING), (quantization_report, QUANTIZATION)])
def test_tables_are_generated_from_the_figures(module, figures):
    assert (ROOT / module.TABLE).read_text() == module.describe(figures)


def test_a_pruned_network_that_does_not_run_is_said_to_be_so():
    assert pruning_report.mean_and_range(pd.Series([98.0, float("nan")])) == "does not run"
    assert pruning_report.mean_and_range(pd.Series([98.0, 99.0])) == "98.50 [98.00, 99.00]"


@pytest.mark.parametrize("sparsity", [0.7, 0.9])
@pytest.mark.parametrize("network", ["tiny", "resnet20"])
def test_global_pruning_beats_that_of_each_layer_alone(network, sparsity):
    pruning = {"network": network, "sparsity": sparsity, "method": "unstructured", "schedule": "none"}
    pruning |= {"reestimated": True}
    assert accuracy(**pruning, scope="global") > accuracy(**pruning, scope="layer") + 0.05


def test_new_batchnorm_statistics_recover_what_pruning_cost():
    pruning = {"network": "tiny", "sparsity": 0.7, "method": "unstructured", "scope": "global", "schedule": "none"}
    assert accuracy(**pruning, reestimated=False) < 0.8
    assert accuracy(**pruning, reestimated=True) > 0.98


def quantized(network: str, method: str) -> pd.Series:
    """Look up the figures of a file of ours."""
    return QUANTIZATION.set_index(["network", "tool", "method"]).loc[network, "ours", method]


@pytest.mark.parametrize("method", ["static", "qat"])
@pytest.mark.parametrize("network", ["cnn", "tiny", "resnet18"])
def test_all_of_a_network_runs_in_int8(network, method):
    assert quantized(network, method)["int8_mac_share"] == 1


@pytest.mark.parametrize("method", ["static", "qat"])
def test_all_of_the_cnn_in_int8_keeps_accuracy_in_a_quarter_of_the_bytes(method):
    exported, optimized = quantized("cnn", "none"), quantized("cnn", method)
    assert optimized["lost"] - optimized["gained"] <= 0.0005 * exported["images"]
    assert exported["size_bytes"] >= 3.9 * optimized["size_bytes"]
