"""Every layer is pruned alone, and the model is afterwards what it was."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

from lightweight.batchnorm import reestimate_batchnorm
from lightweight.checkpointing.session import Session
from lightweight.networks.validation import validate
from lightweight.pruning.importance import Importance
from lightweight.pruning.probe import SensitivityProbe
from lightweight.sensitivity import largest_amount, scan_groups
from tests.examples import BNNET, different, groups_of, prune_in_place, prune_params, state, trained

LAYERS = ["0", "4", "9", "12"]


def probe(model, dataset, images: int = 1000, **changes) -> SensitivityProbe:
    params = prune_params(**changes)
    importance = Importance(params.importance, dataset, images, seed=0)
    return SensitivityProbe(
        model,
        groups_of(model, params, dataset),
        Session(dataset, seed=0),
        importance,
        images,
        9,
    )


@pytest.mark.parametrize("method", ["unstructured", "structured"])
def test_a_probe_is_the_accuracy_of_the_pruned_model_with_new_statistics(tiny_dataset, method):
    model = deepcopy(trained(BNNET, tiny_dataset))
    rows = scan_groups(probe(model, tiny_dataset, method=method), 0.75)
    assert [row["layer"] for row in rows] == (LAYERS if method == "unstructured" else LAYERS[:3])
    for row in rows:
        alone = deepcopy(trained(BNNET, tiny_dataset))
        prune_in_place(
            alone, tiny_dataset, method=method, amount=0.75, exclude=[x for x in LAYERS if x != row["layer"]]
        )
        reestimate_batchnorm(alone, tiny_dataset, 1000, 256, 0)
        assert row["val_accuracy"] == validate(alone, tiny_dataset, tiny_dataset.val)[1]
        layer = dict(model.named_modules())[row["layer"]]
        assert row["parameters"] == sum(tensor.numel() for tensor in layer.parameters())
    assert max(row["drop"] for row in rows) > 0


@pytest.mark.parametrize("importance", ["l1", "taylor"])
def test_probing_leaves_the_model_bitwise_as_it_was(tiny_dataset, importance):
    model = deepcopy(trained(BNNET, tiny_dataset))
    before = state(model)
    found = probe(model, tiny_dataset, importance=importance)
    scan_groups(found, 0.9)
    largest_amount(found, 0.02, 3)
    assert not different(before, model.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_largest_amount_is_inside_the_budget_and_a_step_more_is_not(tiny_dataset):
    model = deepcopy(trained(BNNET, tiny_dataset))
    found = probe(model, tiny_dataset)
    amount = largest_amount(found, 0.1, 6)
    by_amount = {row["amount"]: row["val_accuracy"] for row in found.rows}
    assert found.accuracy - by_amount[amount] <= 0.1
    assert found.accuracy - by_amount[amount + 2**-6] > 0.1
    assert [row["probe"] for row in found.rows] == list(range(1, 8))


def test_a_loss_of_just_the_budget_is_inside_it():
    found = SimpleNamespace(accuracy=0.97, measure=lambda name, amount: 0.95 if amount <= 0.5 else 0.9)
    assert 0.97 - 0.95 > 0.02, "in floating point"
    assert largest_amount(found, 0.02, 4) == 0.5


def test_few_images_are_a_random_part_of_the_validation_split(tiny_dataset):
    found = probe(deepcopy(trained(BNNET, tiny_dataset)), tiny_dataset, images=20)
    assert len(found.val) == 20
    assert not torch.equal(found.val.images, tiny_dataset.val.images[:20])
