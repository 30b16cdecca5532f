"""Files for edge devices: only those that agree with the model are written, and the table says what they are."""

import shutil
from dataclasses import replace
from importlib import import_module

import pytest
import torch

from edge import conversion
from edge.conversion import METHODS, Predict, Source, converter
from lightweight.core.errors import InputError
from lightweight.data.dataset import Dataset
from lightweight.evaluation.scores import evaluate_file
from lightweight.networks.model_file import ModelFile, save_model
from lightweight.onnx.session import make_inference_session
from tests.contract import ROOT
from tests.examples import convnet_file, pruned_convnet, quantize_params
from tests.workspace import Workspace

CONVERTERS = {"litert": "litert_torch", "executorch": "executorch"}


@pytest.fixture
def source(tiny_dataset: Dataset) -> Source:
    params = quantize_params("none", calibration_images=50, max_logit_error=0.01)
    return Source(pruned_convnet(tiny_dataset), tiny_dataset, params, threads=1, seed=0, references={})


@pytest.fixture
def predict(source) -> Predict:
    """Make what predicts as a file without any error would."""
    session = make_inference_session(convnet_file("none", source.dataset), threads=1)
    return lambda image: session.run(None, {"input": image})[0]


@pytest.mark.parametrize(
    ("method", "key", "message"),
    [
        (
            "qat",
            "max_drop: null           # layers",
            r"method = 'qat': files for edge devices are made by none, dynamic",
        ),
        ("static", "calibration: minmax", r"calibration = 'entropy': files for edge devices know minmax only"),
        ("static", "max_drop: null           # layers", r"max_drop = 0.01: must be null for files for edge devices"),
    ],
)
def test_what_the_converters_do_not_know_is_refused_before_anything_is_read(
    tmp_path, monkeypatch, method, key, message
):
    text = (ROOT / "params.yaml").read_text().replace("method: dynamic", f"method: {method}")
    assert key in text
    value = key.replace("minmax", "entropy").replace("null ", "0.01 ")
    (tmp_path / "params.yaml").write_text(text.replace(key, value))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"quantize.{message}"):
        conversion.load_source()


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_failing_or_missing_converter_is_one_line(name):
    with pytest.raises(InputError, match=f"^No module named 'nowhere': `make {name}` installs it"), converter(name):
        import_module("nowhere")
    with pytest.raises(InputError, match=f"^{name} cannot convert the network: no such operator$"), converter(name):
        raise RuntimeError("no such operator\nand a page of its own")


def test_network_and_images_are_of_raw_pixels(source):
    assert source.images.shape == (50, 1, 28, 28)
    assert source.images.max() > 100
    images = torch.from_numpy(source.images)
    expected = source.model(source.dataset.normalize(images.to(torch.uint8)))
    assert torch.allclose(source.network(images), expected, atol=1e-4)


def test_a_file_that_strays_from_the_model_is_not_written(source, predict, tmp_path):
    path = tmp_path / "models/optimized.tflite"
    static = replace(source, params=quantize_params("static", max_logit_error=0.05))
    with pytest.raises(InputError, match=r"quantize.max_logit_error = 0.05: exceeded: 0.1 of the static file"):
        conversion.publish(path, b"file", lambda image: 1.1 * predict(image), static)
    assert not path.exists()


def test_a_file_that_agrees_is_written_and_compared(source, predict, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    arguments = {"channels": 1, "image_size": 28, "num_classes": 10, "small_stem": False}
    save_model(conversion.ORIGINAL, ModelFile(source.model, "convnet", arguments))
    conversion.OPTIMIZED.write_bytes(convnet_file("static", source.dataset))
    references = {
        path: evaluate_file(path, source.dataset, 64, 1) for path in (conversion.ORIGINAL, conversion.OPTIMIZED)
    }
    source = replace(source, references=references)
    path = tmp_path / "models/optimized.tflite"
    conversion.publish(path, 2_000_000 * b"x", predict, source)
    assert path.read_bytes() == 2_000_000 * b"x"
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert cells["file"] == ["test accuracy", "MB", "gained", "lost", "batch 1 (ms)", "times as fast"]
    assert cells[str(path)][0] == cells["models/original.safetensors"][0]  # the same accuracy
    assert cells[str(path)][1:4] == ["2.000", "0", "0"]
    assert cells["models/optimized.onnx"][-1] == "1.00 [1.00, 1.00]"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CONVERTERS)
def test_a_converted_file_agrees_with_the_model_and_has_the_same_bytes_again(source, name, method):
    pytest.importorskip(CONVERTERS[name], reason=f"make {name} installs it, in an environment of its own")
    module = import_module(f"edge.{name}")
    chosen = replace(source, params=quantize_params(method, calibration_images=50, max_logit_error=0.05))
    content = module.convert(chosen)
    val = chosen.dataset.val
    expected = chosen.model(chosen.dataset.normalize(val.images)).detach().numpy()
    conversion.check_parity(expected, conversion.logits(module.open_model(content, 1), val), val, chosen.params)
    assert len(content) < {"none": 100_000, "dynamic": 45_000, "static": 32_000}[method]
    assert module.convert(chosen) == content


@pytest.mark.slow
@pytest.mark.parametrize(("target", "name"), [("litert", "optimized.tflite"), ("executorch", "optimized.pte")])
def test_make_installs_the_converter_and_makes_a_file_of_what_the_pipeline_made(finished, tmp_path, target, name):
    project = Workspace(tmp_path / "project")
    shutil.copytree(finished.workspace.path, project.path, symlinks=True)
    shutil.copy(ROOT / f"requirements-{target}.txt", project.path)
    output = project.run("make", target)
    assert f"| models/{name} " in output
    assert (project.path / "models" / name).stat().st_size < 0.3 * (project.path / conversion.ORIGINAL).stat().st_size
