"""The tables of comparisons/results are what the figures beside them say, and say what the project claims."""

from statistics import mean

import pytest

from comparisons import pruning, quantization_report
from lightweight.core.files import read_csv
from tests.contract import ROOT


def accuracy(**about: str) -> float:
    """The mean over seeds of the figures with these values in these columns, of our own pruning."""
    rows = read_csv(ROOT / pruning.FIGURES)
    found = [float(row["accuracy"]) for row in rows if (about | {"tool": "ours"}).items() <= row.items()]
    assert len(found) == 3
    return mean(found)


@pytest.mark.parametrize(
    ("module", "text"), [(pruning, pruning.table), (quantization_report, quantization_report.text)]
)
def test_tables_are_generated_from_the_figures(module, text):
    assert (ROOT / module.TABLE).read_text() == text(read_csv(ROOT / module.FIGURES))


@pytest.mark.parametrize("sparsity", ["0.7", "0.9"])
@pytest.mark.parametrize("network", ["tiny", "resnet20"])
def test_global_pruning_beats_that_of_each_layer_alone(network, sparsity):
    about = {"network": network, "sparsity": sparsity, "method": "unstructured", "schedule": "none"}
    about |= {"reestimated": "True"}
    assert accuracy(**about, scope="global") > accuracy(**about, scope="layer") + 0.05


def test_new_batchnorm_statistics_recover_what_pruning_cost():
    about = {"network": "tiny", "sparsity": "0.7", "method": "unstructured", "scope": "global", "schedule": "none"}
    assert accuracy(**about, reestimated="False") < 0.8
    assert accuracy(**about, reestimated="True") > 0.98


def quantized(network: str, method: str) -> dict[str, str]:
    """The figures of a file of ours."""
    rows = read_csv(ROOT / quantization_report.FIGURES)
    return next(row for row in rows if (row["network"], row["tool"], row["method"]) == (network, "ours", method))


@pytest.mark.parametrize("method", ["static", "qat"])
@pytest.mark.parametrize("network", ["cnn", "tiny", "resnet18"])
def test_all_of_a_network_runs_in_int8(network, method):
    assert float(quantized(network, method)["int8_mac_share"]) == 1


@pytest.mark.parametrize("method", ["static", "qat"])
def test_all_of_the_cnn_in_int8_keeps_accuracy_in_a_quarter_of_the_bytes(method):
    exported, optimized = quantized("cnn", "none"), quantized("cnn", method)
    lost = int(optimized["lost"]) - int(optimized["gained"])
    assert lost <= 0.0005 * int(exported["images"])
    assert int(exported["size_bytes"]) >= 3.9 * int(optimized["size_bytes"])
