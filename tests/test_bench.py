"""The tables of bench/ are what the figures beside them say, and say what the project claims."""

from statistics import mean

import pytest

from bench import pruning
from lightweight.files import read_csv
from tests.contract import ROOT


def accuracy(**about: str) -> float:
    """The mean over seeds of the figures with these values in these columns, of our own pruning."""
    rows = read_csv(ROOT / pruning.FIGURES)
    found = [float(row["accuracy"]) for row in rows if (about | {"tool": "ours"}).items() <= row.items()]
    assert len(found) == 3
    return mean(found)


def test_the_table_is_generated_from_the_figures():
    assert (ROOT / pruning.TABLE).read_text() == pruning.table(read_csv(ROOT / pruning.FIGURES))


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
