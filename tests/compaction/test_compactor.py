"""The compact file of a trained network: small, accurate, and its ONNX file computes what was evaluated."""

import numpy as np
import pytest
import torch

from lightweight.batchnorm import BnUpdateParams
from lightweight.checkpointing import checkpointer as resuming
from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.checkpointing.session import Session
from lightweight.codec.container import unpack
from lightweight.codec.tensors import CodedTensor
from lightweight.compaction.assembly import find_scales, fit_scales, list_others, round_evenly
from lightweight.compaction.compactor import CompactFile, Compactor
from lightweight.compaction.params import CompactParams
from lightweight.onnx.export import export_onnx
from lightweight.onnx.logits import onnx_logits, torch_logits
from lightweight.onnx.session import make_inference_session
from lightweight.training.loop import FineTune
from tests.checkpointing.test_checkpointer import Inline, Interruption
from tests.examples import BNNET, new, noise, train_params, trained


def compact_params(**changes) -> CompactParams:
    given = {
        "enabled": True, "method": "trained", "rate": 3e-6, "step": 1.0, "epochs": 2, "lr": 0.003, "distill": False,
        "images": 100, "scale_steps": 16, "bias_bits": 8,
    }  # fmt: skip
    return CompactParams(**given | changes)


def compact(dataset, checkpointer: Checkpointer | None = None, **changes) -> CompactFile:
    params = compact_params(**changes)
    session = Session(dataset, 0, checkpointer=checkpointer or Checkpointer())
    statistics = BnUpdateParams(num_images=200, batch_size=50)
    fine_tune = FineTune(session, params.training(train_params()), params.lr, params.epochs, None)
    return Compactor(trained(BNNET, dataset), params, statistics, session).run(fine_tune)


def accuracy(logits, split) -> float:
    return float((logits.argmax(1) == split.labels.numpy()).mean())


@pytest.mark.parametrize(("method", "rate"), [("trained", 3e-6), ("layerwise", 1e-7)])
def test_the_file_is_a_fraction_of_the_network_and_nearly_as_accurate(tiny_dataset, method, rate):
    file, network = compact(tiny_dataset, method=method, rate=rate), trained(BNNET, tiny_dataset)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert len(file.content) < parameters * 4 / 10
    session = make_inference_session(unpack(file.content).to_onnx(), 1)
    before = accuracy(torch_logits(network, tiny_dataset, tiny_dataset.val, 64), tiny_dataset.val)
    assert accuracy(onnx_logits(session, tiny_dataset.val, 64), tiny_dataset.val) > before - 0.03


@pytest.mark.parametrize(("method", "rates"), [("trained", (1e-6, 1e-3)), ("layerwise", (1e-7, 1e-5))])
def test_a_higher_rate_makes_a_smaller_file(tiny_dataset, method, rates):
    low, high = (len(compact(tiny_dataset, method=method, rate=rate, epochs=10).content) for rate in rates)
    assert high < 0.8 * low


def test_equal_inputs_give_equal_bytes_and_the_network_is_left_alone(tiny_dataset):
    before = {name: value.clone() for name, value in trained(BNNET, tiny_dataset).state_dict().items()}
    assert compact(tiny_dataset, epochs=1).content == compact(tiny_dataset, epochs=1).content
    assert all(torch.equal(value, before[name]) for name, value in trained(BNNET, tiny_dataset).state_dict().items())


@pytest.mark.parametrize("method", ["trained", pytest.param("layerwise", marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_in_the_same_bytes(tiny_dataset, tmp_path, monkeypatch, method):
    monkeypatch.setattr(resuming, "MAX_LOST_SECONDS", 0.0)

    def run(folder, stop: int | None) -> bytes:
        checkpointer = Checkpointer(folder, "compact", Inline(), lambda line: None)
        tick, calls = checkpointer.save_if_due, []

        def ticking(where: str) -> None:
            tick(where)
            calls.append(where)
            if len(calls) == stop:
                raise Interruption

        checkpointer.save_if_due = ticking
        return compact(tiny_dataset, checkpointer, method=method).content

    with pytest.raises(Interruption):
        run(tmp_path / "cut", 3)
    assert list((tmp_path / "cut").iterdir())
    assert run(tmp_path / "cut", None) == run(tmp_path / "whole", None)


def test_without_it_the_file_is_empty_and_nothing_is_trained(tiny_dataset):
    file = compact(tiny_dataset, enabled=False)
    assert (file.content, file.history.rows, list(file.tensors)) == (b"", [], [])
    assert file.describe().startswith("compact.enabled is false")


def test_every_weight_of_the_file_is_an_integer_with_a_scale(tiny_dataset):
    file = compact(tiny_dataset)
    large = [tensor for tensor in file.tensors if isinstance(tensor, CodedTensor) and tensor.integers.ndim > 1]
    assert len(large) == 4
    assert all(np.abs(tensor.integers).max() <= 31 for tensor in large)  # and none was rounded to 8 bits at the end


def test_scales_of_channels_are_found_again():
    source = np.random.default_rng(0)
    integers, scales = source.integers(-5, 6, (6, 4, 3, 3)), np.array([0.5, 2, 1, 0.25, 4, 1])
    integers[2], scales[5] = 0, -1  # a channel without weights, and one of negative scale
    weight = (integers * scales.reshape(-1, 1, 1, 1)).astype(np.float32)
    found = fit_scales(weight, integers, 2)
    assert np.array_equal(found.values(), weight)
    assert found.codes[2] == found.codes[1]  # which costs nothing
    assert np.array_equal(found.integers[5], -integers[5])


def test_a_transposed_weight_has_its_scales_along_the_other_axis():
    integers = np.random.default_rng(0).integers(-5, 6, (6, 4))
    weight = (integers * np.array([1, 2, 4, 8, 16, 32])[:, None]).astype(np.float32)
    found = fit_scales(np.ascontiguousarray(weight.T), integers, 2)
    assert found.axis == 1
    assert np.array_equal(found.values(), weight.T)


def test_a_weight_that_is_no_such_product_has_no_scales():
    source = np.random.default_rng(0)
    assert fit_scales(source.normal(size=(4, 6)).astype(np.float32), source.integers(-5, 6, (4, 6)), 2) is None
    assert fit_scales(np.ones((4, 6), np.float32), np.ones((4, 5), np.int64), 2) is None


def test_even_rounding_is_half_a_step_away_at_most():
    array = np.random.default_rng(0).normal(size=50).astype(np.float32)
    error = np.abs(round_evenly(array, 6).values() - array).max()
    assert error <= np.ptp(array) / 63 / 2 * 2**0.125 + 1e-6
    assert error < 4 * np.abs(round_evenly(array, 4).values() - array).max()


def test_what_has_no_integers_of_its_own_is_named():
    model = export_onnx(new(BNNET).eval(), noise(1, 28, 4))
    weights = find_scales(model, {}, 16)
    assert weights == {}
    named = list_others(model, weights)
    assert sorted(named) == [f"model.{number}.weight" for number in ("0", "12", "4", "9")]
    coded = {name: round_evenly(np.ones((2, 2)), 8) for name in named[:3]}
    assert list_others(model, coded) == named[3:]
