"""Sensitivity prunes every layer alone and all together, and does not change the model."""

import re
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

from lightweight.batchnorm import reestimate_batchnorm
from lightweight.checkpointing.session import Session
from lightweight.data.augmentation import OFF
from lightweight.networks.validation import validate
from lightweight.pruning.importance import Importance
from lightweight.pruning.probe import SensitivityProbe
from lightweight.sensitivity import SensitivityParams, largest_amount, measure_sensitivity, scan_groups
from tests.examples import BNNET, augment_params, different, groups_of, prune_in_place, prune_params, state, trained

LAYERS = ["0", "4", "9", "12"]


def make_probe(model, dataset, images: int = 1000, **changes) -> SensitivityProbe:
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


def test_statistics_of_a_probe_are_those_of_images_augmented_as_in_training(tiny_dataset, monkeypatch):
    augmentations = []
    monkeypatch.setattr(
        "lightweight.pruning.probe.reestimate_batchnorm", lambda *given: augmentations.append(given[-1])
    )
    session = Session(tiny_dataset, seed=0, augmentation=augment_params(crop=2))
    result = measure_sensitivity(deepcopy(trained(BNNET, tiny_dataset)), sensitivity_params(), session)
    assert augmentations == [session.augmentation] * len(result.probes)


@pytest.mark.parametrize("method", ["unstructured", "structured"])
def test_a_probe_is_the_accuracy_of_the_pruned_model_with_new_statistics(tiny_dataset, method):
    model = deepcopy(trained(BNNET, tiny_dataset))
    rows = scan_groups(make_probe(model, tiny_dataset, method=method), 0.75)
    assert [row["layer"] for row in rows] == (LAYERS if method == "unstructured" else LAYERS[:3])
    for row in rows:
        alone = deepcopy(trained(BNNET, tiny_dataset))
        prune_in_place(
            alone, tiny_dataset, method=method, amount=0.75, exclude=[x for x in LAYERS if x != row["layer"]]
        )
        reestimate_batchnorm(alone, tiny_dataset, 1000, 256, 0, augmentation=OFF)
        assert row["val_accuracy"] == validate(alone, tiny_dataset, tiny_dataset.val)[1]
        layer = dict(model.named_modules())[row["layer"]]
        assert row["parameters"] == sum(tensor.numel() for tensor in layer.parameters())
    assert max(row["drop"] for row in rows) > 0


@pytest.mark.parametrize("importance", ["l1", "taylor"])
def test_probes_change_no_bit_of_the_model(tiny_dataset, importance):
    model = deepcopy(trained(BNNET, tiny_dataset))
    before = state(model)
    probe = make_probe(model, tiny_dataset, importance=importance)
    scan_groups(probe, 0.9)
    largest_amount(probe, 0.02, 3)
    assert not different(before, model.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_largest_amount_is_within_the_drop_and_a_step_more_is_not(tiny_dataset):
    model = deepcopy(trained(BNNET, tiny_dataset))
    probe = make_probe(model, tiny_dataset)
    amount = largest_amount(probe, 0.1, 6)
    by_amount = {row["amount"]: row["val_accuracy"] for row in probe.rows}
    assert probe.accuracy - by_amount[amount] <= 0.1
    assert probe.accuracy - by_amount[amount + 2**-6] > 0.1
    assert [row["probe"] for row in probe.rows] == list(range(1, 8))


def test_a_drop_of_exactly_the_maximum_is_allowed():
    probe = SimpleNamespace(accuracy=0.97, measure=lambda name, amount: 0.95 if amount <= 0.5 else 0.9)
    assert 0.97 - 0.95 > 0.02, "in floating point"
    assert largest_amount(probe, 0.02, 4) == 0.5


def test_few_images_are_a_random_part_of_the_validation_split(tiny_dataset):
    probe = make_probe(deepcopy(trained(BNNET, tiny_dataset)), tiny_dataset, images=20)
    assert len(probe.val) == 20
    assert not torch.equal(probe.val.images, tiny_dataset.val.images[:20])


def sensitivity_params(**changes) -> SensitivityParams:
    given = {"method": "structured", "importance": "l1", "images": 20, "layers": "both", "exclude": [], "heads": True}
    return SensitivityParams(**given | {"amount": 0.75, "max_drop": 0.1, "probes": 3} | changes)


def test_every_probe_says_what_it_has_measured_and_how_long_the_others_take(tiny_dataset):
    lines: list[str] = []
    session = Session(tiny_dataset, seed=0, log=lines.append)
    result = measure_sensitivity(deepcopy(trained(BNNET, tiny_dataset)), sensitivity_params(), session)
    assert len(lines) == len(result.probes) == 1 + 3 + 3, "the whole network, three groups, three steps of the search"
    for number, (line, row) in enumerate(zip(lines, result.probes, strict=True), start=1):
        pruned = f"without {row['amount']:.1%} of {row['layer'] or 'all layers'}"
        assert line.startswith(f"probe {number}/7  val accuracy {row['val_accuracy']:.2%}  {pruned}")
        assert bool(re.search(r"  \d\d:\d\d left$", line)) == (number < 7)


def test_without_an_amount_nothing_is_measured(tiny_dataset):
    model = deepcopy(trained(BNNET, tiny_dataset)).train()
    result = measure_sensitivity(model, sensitivity_params(amount=None), Session(tiny_dataset, seed=0))
    assert (result.groups, result.probes) == ([], [])
    assert result.describe(0.1) == "off: sensitivity.amount is null"
