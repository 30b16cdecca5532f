"""A second opinion counts: a runtime that cannot run the file, or says something else, is a failure."""

import numpy as np
import pytest

from comparisons import runtimes
from lightweight.core.errors import InputError
from lightweight.data.dataset import Dataset
from lightweight.data.dataset_file import save_dataset
from lightweight.onnx.checksum import serialize
from lightweight.onnx.export import export_onnx
from tests.examples import METHODS, convnet_file, small_cnn, small_images


@pytest.fixture
def ask(tmp_path, tiny_dataset: Dataset, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    save_dataset(tmp_path / "data/prepared.safetensors", tiny_dataset)

    def ask(method: str = "static") -> tuple[int, str]:
        (tmp_path / "model.onnx").write_bytes(convnet_file(method, tiny_dataset))
        monkeypatch.setattr("sys.argv", ["runtimes", "model.onnx"])
        with pytest.raises(SystemExit) as end:
            runtimes.main()
        return int(end.value.code), capsys.readouterr().out

    return ask


def changed_runtime(change):
    """Make a runtime that changes the logits of ONNX Runtime, under the name of a package that is installed."""

    def load(path):
        predict = runtimes.with_onnxruntime(path)
        return lambda images: change(predict(images))

    return {"onnxruntime": runtimes.with_onnxruntime, "numpy": load}


def test_agreement_is_printed_with_versions(ask, monkeypatch):
    monkeypatch.setattr(runtimes, "RUNTIMES", changed_runtime(lambda logits: 1.01 * logits))
    code, output = ask()
    assert code == 0
    (line,) = (line for line in output.splitlines() if "numpy" in line)
    assert np.__version__ in line
    assert "1.00e-02" in line
    assert "100.00%" in line


def test_another_class_is_a_failure(ask, monkeypatch):
    monkeypatch.setattr(runtimes, "RUNTIMES", changed_runtime(lambda logits: -logits))
    code, output = ask()
    assert code == 1
    assert "numpy: another class on more than 1% of the images" in output


def test_a_runtime_that_cannot_run_the_file_is_named_with_its_reason(ask, monkeypatch):
    def fail(logits):
        raise RuntimeError("OpenCV(5): error: (-2:Unspecified error) no such\n> layer")

    monkeypatch.setattr(runtimes, "RUNTIMES", changed_runtime(fail))
    code, output = ask()
    assert code == 1
    assert "numpy: no such > layer\n" in output


def test_one_that_is_not_installed_is_no_failure(ask, monkeypatch):
    monkeypatch.setattr(runtimes, "RUNTIMES", {**changed_runtime(np.copy), "no-such-runtime": runtimes.with_openvino})
    code, output = ask()
    assert code == 0
    assert "not installed" in output


@pytest.mark.parametrize("method", [*METHODS, "qat"])
def test_openvino_agrees_on_every_method(ask, monkeypatch, method):
    pytest.importorskip("openvino", reason="pip install -r requirements-runtimes.txt")
    names = ("onnxruntime", "openvino")
    monkeypatch.setattr(runtimes, "RUNTIMES", {name: runtimes.RUNTIMES[name] for name in names})
    assert ask(method)[0] == 0


@pytest.mark.parametrize("method", ["none", "fp16", "static", "qat"])
def test_opencv_agrees_where_it_knows_the_operators(ask, method):
    pytest.importorskip("cv2", reason="pip install -r requirements-runtimes.txt")
    assert ask(method)[0] == 0


def test_a_file_for_other_images_is_one_line(tmp_path, ask, tiny_dataset, monkeypatch):
    small = small_images(tiny_dataset)
    (tmp_path / "other.onnx").write_bytes(serialize(export_onnx(small_cnn(), small)))
    monkeypatch.setattr("sys.argv", ["runtimes", "other.onnx"])
    with pytest.raises(InputError, match=r"^other.onnx: is for images of shape \(1, 12, 12\) and 10 classes, the data"):
        runtimes.main()
