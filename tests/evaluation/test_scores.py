"""Scores follow from the published formulas, costs from the very file, and every variant has the same keys."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from lightweight.core.errors import InputError
from lightweight.evaluation.scores import EvaluatedModel, evaluate_file, prediction_rows, score, score_all
from lightweight.macs import count_macs
from lightweight.networks.model_file import ModelFile, save_model
from tests.examples import BNNET, METHODS, convnet_file, pruned_convnet, trained

ARGUMENTS = {"channels": 1, "image_size": 28, "num_classes": 10, "small_stem": False}
CONVNET_MACS = 28 * 28 * 16 * 9 + 14 * 14 * 32 * 16 * 9 + 32 * 7 * 7 * 10
CONVNET_PARAMETERS = (16 * 9 + 16) + (32 * 16 * 9 + 32) + (32 * 7 * 7 * 10 + 10)


def predicted(*right: bool) -> EvaluatedModel:
    """Make predictions that are right or wrong where all labels are 1."""
    return EvaluatedModel(np.array(right, dtype=int), {})


@pytest.fixture(scope="module")
def files(tiny_dataset, tmp_path_factory) -> dict[str, Path]:
    """Write the trained and the pruned convnet as weights, and the pruned one as it ships by each method."""
    folder = tmp_path_factory.mktemp("models")
    models = {"original": trained("convnet", tiny_dataset), "pruned": pruned_convnet(tiny_dataset)}
    paths = {name: folder / f"{name}.safetensors" for name in models}
    paths |= {method: folder / f"{method}.onnx" for method in METHODS}
    for name, model in models.items():
        save_model(paths[name], ModelFile(model, "convnet", ARGUMENTS))
    for method in METHODS:
        paths[method].write_bytes(convnet_file(method, tiny_dataset))
    return paths


@pytest.fixture(scope="module")
def variants(tiny_dataset, files) -> dict[str, EvaluatedModel]:
    return {name: evaluate_file(path, tiny_dataset, batch_size=16, threads=1) for name, path in files.items()}


@pytest.mark.parametrize(("right", "images"), [(0, 10), (1, 10), (7, 10), (50, 60), (60, 60), (9_900, 10_000)])
def test_the_interval_is_that_of_wilson(right, images):
    variant = predicted(*[True] * right, *[False] * (images - right))
    scores = score(variant, variant, np.ones(images, dtype=int))
    z, share = 1.959963984540054, right / images
    middle = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    assert scores["accuracy"] == share
    assert scores["images"] == images
    assert (scores["accuracy_low"], scores["accuracy_high"]) == pytest.approx((middle - half, middle + half), abs=1e-9)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 5, 2 * (1 + 6) / 2**6),
        (5, 1, 2 * (1 + 6) / 2**6),
        (3, 3, 1.0),
        (0, 6, 2 / 2**6),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
    ],
)
def test_the_p_value_is_that_of_the_exact_mcnemar_test(gained, lost, p):
    same = [True] * 4 + [False] * 3
    original = predicted(*same, *[False] * gained, *[True] * lost)
    variant = predicted(*same, *[True] * gained, *[False] * lost)
    scores = score(variant, original, np.ones(len(variant.predictions), dtype=int))
    assert (scores["gained"], scores["lost"]) == (gained, lost)
    assert scores["mcnemar_p"] == pytest.approx(p)


def test_macs_are_counted_for_one_image_in_evaluation_mode(tiny_dataset):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10))
    before = model[1].running_mean.clone()
    assert count_macs(model, tiny_dataset.blank(1)) == 7840
    assert (model[1].running_mean == before).all()


def test_every_variant_has_the_same_keys_in_the_same_order_and_fits_into_json(tiny_dataset, variants):
    labels = tiny_dataset.test.labels.numpy()
    all_scores = [score(variant, variants["original"], labels) for variant in variants.values()]
    assert len({tuple(scores) for scores in all_scores}) == 1
    assert [json.loads(json.dumps(scores, allow_nan=False)) for scores in all_scores] == all_scores


@pytest.mark.parametrize("name", ["original", *METHODS])
def test_sizes_are_those_of_the_file_and_of_its_strongest_zlib_stream(files, variants, name):
    costs = variants[name].costs
    assert costs["size_bytes"] == files[name].stat().st_size
    assert costs["compressed_bytes"] == len(zlib.compress(files[name].read_bytes(), level=9))


def test_weights_and_the_file_made_of_them_cost_the_same_parameters_and_macs(variants):
    for name in ("pruned", *METHODS):
        costs = variants[name].costs
        assert (costs["parameters"], costs["macs"]) == (CONVNET_PARAMETERS, CONVNET_MACS)
        assert costs["nonzero_parameters"] == variants["pruned"].costs["nonzero_parameters"]
    pruned = (CONVNET_PARAMETERS - 16 - 32 - 10) // 2
    original = variants["original"].costs
    assert original["nonzero_parameters"] - variants["pruned"].costs["nonzero_parameters"] == pruned


def test_running_statistics_of_a_model_are_not_parameters(tiny_dataset, tmp_path):
    model, path = trained(BNNET, tiny_dataset), tmp_path / "model.safetensors"
    save_model(path, ModelFile(model, BNNET, {"channels": 1, "image_size": 28, "num_classes": 10, "small_stem": False}))
    costs = evaluate_file(path, tiny_dataset, batch_size=16, threads=1).costs
    assert costs["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert costs["nonzero_parameters"] == sum(int(parameter.count_nonzero()) for parameter in model.parameters())


def test_the_share_of_int8_macs_is_that_of_the_file(variants):
    shares = {name: variant.costs["int8_mac_share"] for name, variant in variants.items()}
    linear = 32 * 7 * 7 * 10 / CONVNET_MACS
    floats = dict.fromkeys(("original", "pruned", "none", "fp16"), 0)
    assert shares == floats | {"dynamic": pytest.approx(linear), "int4": pytest.approx(1 - linear), "static": 1}


def test_what_no_layer_of_the_file_computes_counts_as_float(tiny_dataset, files):
    def costs(macs: int) -> dict:
        return evaluate_file(files["static"], tiny_dataset, batch_size=16, threads=1, macs=macs).costs

    assert (costs(CONVNET_MACS)["macs"], costs(CONVNET_MACS)["int8_mac_share"]) == (CONVNET_MACS, 1)
    more = 4 * CONVNET_MACS
    assert (costs(more)["macs"], costs(more)["int8_mac_share"]) == (more, 0.25)


def test_predictions_are_the_most_likely_classes_of_the_test_images(tiny_dataset, variants):
    model = trained("convnet", tiny_dataset)
    expected = model(tiny_dataset.normalize(tiny_dataset.test.images)).argmax(1).tolist()
    assert variants["original"].predictions.tolist() == expected
    assert variants["none"].predictions.tolist() == variants["pruned"].predictions.tolist()


def test_a_trained_network_scores_far_above_chance(tiny_dataset, variants):
    labels = tiny_dataset.test.labels.numpy()
    for variant in variants.values():
        assert score(variant, variants["original"], labels)["accuracy"] > 0.7


def test_trust_is_scored_on_the_same_images_and_names_a_class(tiny_dataset, variants):
    labels, classes = tiny_dataset.test.labels.numpy(), tiny_dataset.classes
    scores = score_all(variants, labels, classes)
    for name, variant in variants.items():
        own = scores[name]
        right = variant.predictions == labels
        worst = labels == classes.index(own["worst_class"])
        assert (
            own["worst_class_accuracy"]
            == right[worst].mean()
            == min(right[labels == label].mean() for label in set(labels))
        )
        logits = -np.log(variant.confidences[right])
        assert own["log_loss"] == pytest.approx((logits.sum() + variant.losses[~right].sum()) / len(labels))
        assert 0 <= own["calibration_error"] <= 1
        assert own["accuracy"] == score(variant, variants["original"], labels)["accuracy"]


def test_predictions_of_both_models_are_listed_by_name_with_their_confidences(tiny_dataset, variants):
    labels, classes = tiny_dataset.test.labels.numpy(), tiny_dataset.classes
    rows = prediction_rows(variants["static"], variants["original"], labels, classes)
    assert [row["predicted"] for row in rows] == [classes[number] for number in variants["static"].predictions]
    assert [row["original"] for row in rows] == [classes[number] for number in variants["original"].predictions]
    assert [float(row["original_confidence"]) for row in rows] == pytest.approx(
        variants["original"].confidences, abs=1e-4
    )


def test_the_weights_take_the_bits_that_their_method_stores(variants):
    ideal = {name: variant.costs["ideal_bytes"] for name, variant in variants.items()}
    biases = 16 + 32 + 10
    assert ideal["original"] == ideal["none"] == 4 * CONVNET_PARAMETERS
    assert ideal["fp16"] == pytest.approx(2 * CONVNET_PARAMETERS, abs=2 * biases)
    assert ideal["static"] == CONVNET_PARAMETERS + 3 * biases
    assert ideal["int4"] < 0.6 * CONVNET_PARAMETERS + 4 * biases
    for variant in variants.values():
        costs = variant.costs
        assert costs["entropy_bytes"] <= costs["ideal_bytes"] <= costs["size_bytes"]


def test_the_layers_of_networks_are_known_and_those_of_files_are_read_elsewhere(variants):
    assert sum(module.macs for module in variants["original"].modules.values()) == CONVNET_MACS
    assert variants["static"].modules == {}


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
@pytest.mark.parametrize("content", [None, b"", b"garbage"], ids=["missing", "empty", "garbage"])
def test_a_missing_or_damaged_model_file_is_refused_by_its_name(tiny_dataset, tmp_path, suffix, content):
    path = tmp_path / f"model{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=path.name):
        evaluate_file(path, tiny_dataset, batch_size=16, threads=1)
