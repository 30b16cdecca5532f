"""The benchmark times the same images in every model, and compares what the same runtime runs."""

import pytest
import torch

from lightweight.core.errors import InputError
from lightweight.core.machine import cpu_name
from lightweight.evaluation import benchmark
from lightweight.evaluation.benchmark import BenchmarkParams, measure_latency
from lightweight.onnx.export import export_onnx
from tests.examples import convnet_file, pruned_convnet, trained

MODELS = ["original", "exported", "recalibrated", "optimized"]


@pytest.fixture
def measured(tiny_dataset, tmp_path, monkeypatch):
    """Measure the convnet; returns latencies, and by batch size and model the logits of what was timed."""
    path, logits = tmp_path / "optimized.onnx", []
    path.write_bytes(convnet_file("static", tiny_dataset))
    interleave = benchmark.interleave

    def record(calls, rounds):
        logits.append(
            {name: torch.as_tensor(call()[0] if name != "original" else call()) for name, call in calls.items()}
        )
        return interleave(calls, rounds)

    monkeypatch.setattr(benchmark, "interleave", record)
    models = trained("convnet", tiny_dataset), pruned_convnet(tiny_dataset)
    params = BenchmarkParams(batch_sizes=[1, 70], rounds=10)
    return measure_latency(*models, path, tiny_dataset, params, threads=1), logits


def test_every_model_is_measured_at_every_batch_size_beside_its_hardware(measured):
    latency, _ = measured
    assert list(latency) == MODELS
    for result in latency.values():
        assert (result["cpu"], result["threads"]) == (cpu_name(), 1)
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


def test_all_models_are_timed_on_the_same_images_more_than_there_are_where_the_batch_is_larger(measured, tiny_dataset):
    _, logits = measured
    assert [len(found["original"]) for found in logits] == [1, 70]
    for found in logits:
        assert torch.allclose(found["original"], found["exported"], atol=1e-3)
        assert torch.equal(found["original"].argmax(1), found["exported"].argmax(1))
    assert torch.equal(logits[1]["optimized"][60:], logits[1]["optimized"][:10])


def test_a_damaged_file_is_refused_by_its_name(tiny_dataset, tmp_path):
    model, path = trained("convnet", tiny_dataset), tmp_path / "optimized.onnx"
    path.write_bytes(export_onnx(model, tiny_dataset).SerializeToString()[:1000])
    params = BenchmarkParams(batch_sizes=[1], rounds=10)
    with pytest.raises(InputError, match=r"optimized.onnx: damaged or not an ONNX file"):
        measure_latency(model, model, path, tiny_dataset, params, threads=1)
