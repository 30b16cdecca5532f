"""The benchmark times the same images in every model, and compares what the same runtime runs."""

from copy import deepcopy
from statistics import median

import pytest
import torch

from lightweight.core.errors import InputError
from lightweight.core.machine import cpu_frequency, cpu_name
from lightweight.evaluation import benchmark
from lightweight.evaluation.benchmark import BenchmarkParams, measure_latency
from lightweight.onnx.export import export_onnx
from tests.examples import convnet_file, pruned_convnet, trained

MODELS = ["original", "exported", "recalibrated", "optimized"]


@pytest.fixture(scope="module")
def measured(tiny_dataset, tmp_path_factory):
    """Measure the convnet; returns latencies, and by batch size the logits of what was timed and how it was."""
    path, logits, compared = tmp_path_factory.mktemp("benchmark") / "optimized.onnx", [], []
    path.write_bytes(convnet_file("static", tiny_dataset))
    time_in_turns = benchmark.time_in_turns

    def record(openers, pairs, effort):
        found = {name: opener()() for name, opener in openers.items()}
        logits.append({name: torch.as_tensor(out if name == "original" else out[0]) for name, out in found.items()})
        compared.append((set(pairs), effort))
        return time_in_turns(openers, pairs, effort)

    models = trained("convnet", tiny_dataset), pruned_convnet(tiny_dataset)
    params = BenchmarkParams(batch_sizes=[1, 70], rounds=12, precision=1.0)
    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(benchmark, "time_in_turns", record)
        latency, turns = measure_latency(*models, path, tiny_dataset, params, threads=1)
    return latency, logits, compared, turns


def test_every_model_is_measured_at_every_batch_size_beside_its_hardware(measured):
    latency, _, _, _ = measured
    assert list(latency) == MODELS
    for result in latency.values():
        assert (result["cpu"], result["threads"]) == (cpu_name(), 1)
        assert result["load_before"] >= 0
        assert result["load_after"] >= 0
        assert (result["cpu_mhz"] is None) == (cpu_frequency() is None)
        assert [key for key in result if key.startswith("batch_")] == ["batch_1", "batch_70"]
    for batch in ("batch_1", "batch_70"):
        against = {name: [key for key in latency[name][batch] if key.startswith("against_")] for name in MODELS}
        assert against == {
            "original": [],
            "exported": [],
            "recalibrated": ["against_exported"],
            "optimized": ["against_exported", "against_recalibrated"],
        }
        assert latency["original"][batch]["speedup"] == 1


def test_rounds_go_on_until_every_ratio_that_is_written_is_precise(measured):
    latency, _, compared, _ = measured
    for (pairs, effort), batch in zip(compared, ("batch_1", "batch_70"), strict=True):
        assert (effort.rounds, effort.precision, effort.threads) == (12, 1.0, 1)
        written = {(name, "original") for name in MODELS[1:]}
        written |= {
            (name, key.removeprefix("against_"))
            for name in MODELS
            for key in latency[name][batch]
            if key.startswith("against_")
        }
        assert pairs == written


def test_every_opening_copies_the_network_and_its_logits_are_the_same(tiny_dataset):
    network = deepcopy(trained("convnet", tiny_dataset))
    images = tiny_dataset.normalize(tiny_dataset.test.images[:3])
    one, other = (benchmark.open_network(network, images) for _ in range(2))
    with torch.no_grad():
        expected = network(images)
        next(network.parameters()).zero_()
    assert torch.equal(one(), expected)
    assert torch.equal(other(), expected)


def test_all_models_are_timed_on_the_same_images_more_than_there_are_where_the_batch_is_larger(measured, tiny_dataset):
    _, logits, _, _ = measured
    assert [len(found["original"]) for found in logits] == [1, 70]
    for found in logits:
        assert torch.allclose(found["original"], found["exported"], atol=1e-3)
        assert torch.equal(found["original"].argmax(1), found["exported"].argmax(1))
    assert torch.equal(logits[1]["optimized"][60:], logits[1]["optimized"][:10])


def test_a_damaged_file_is_refused_by_its_name(tiny_dataset, tmp_path):
    model, path = trained("convnet", tiny_dataset), tmp_path / "optimized.onnx"
    path.write_bytes(export_onnx(model, tiny_dataset).SerializeToString()[:1000])
    params = BenchmarkParams(batch_sizes=[1], rounds=12, precision=0.05)
    with pytest.raises(InputError, match=r"optimized.onnx: damaged or not an ONNX file"):
        measure_latency(model, model, path, tiny_dataset, params, threads=1)


def test_every_turn_is_listed_and_the_latency_is_their_median(measured):
    latency, _, _, turns = measured
    for name in MODELS:
        for size in (1, 70):
            own = [row for row in turns if (row["model"], row["batch"]) == (name, size)]
            summary = latency[name][f"batch_{size}"]
            assert [row["round"] for row in own] == list(range(1, summary["rounds"] + 1))
            assert median(float(row["milliseconds"]) for row in own) == pytest.approx(summary["latency_ms"], rel=1e-4)


def test_the_peak_memory_of_what_onnxruntime_runs_is_measured_at_every_batch_size(measured):
    latency, _, _, _ = measured
    for batch in ("batch_1", "batch_70"):
        assert "peak_memory_bytes" not in latency["original"][batch]
        assert all(latency[name][batch]["peak_memory_bytes"] > 0 for name in MODELS[1:])
