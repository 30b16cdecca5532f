"""What a run needs is tried before it begins: a fault is one line, and nothing has been written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightweight import preflight
from lightweight.core.errors import InputError
from lightweight.networks.factory import build
from lightweight.networks.model_file import ModelFile, save_model
from lightweight.preflight import count_activations, look_ahead
from lightweight.preparation.params import PrepareParams
from lightweight.preparation.prepare import open_source
from stages import check
from tests.contract import ROOT
from tests.examples import train_params

CONVNET = {"channels": 3, "image_size": 8, "num_classes": 3, "small_stem": False}


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of two images in each of three classes."""
    for name in ("ant", "bee", "cat"):
        for number in range(2):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((9, 12, 3), 40 * number, dtype=np.uint8)).save(path)
    return tmp_path


def prepare_params(**changed: object) -> PrepareParams:
    known = {"dataset": "folder", "path": "photos", "image_size": 8, "resize": "fit", "input_size": None, "channels": 3}
    shares = {"val_fraction": 0.25, "test_fraction": 0.25}
    return PrepareParams(**known | {"normalization": "data", "storage": "pixels"} | shares | changed)


def look(root: Path, prepare: dict | None = None, **changed: object) -> list[str]:
    return look_ahead(prepare_params(**prepare or {}), train_params(**changed), root, [])


def refusal(*given: object, **changed: object) -> str:
    with pytest.raises(InputError) as error:
        look(*given, **changed)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_images_network_and_needs_are_told(photos):
    images, network, needs = look(photos)
    parameters = 3 * 16 * 9 + 16 + 16 * 32 * 9 + 32 + 32 * 4 * 3 + 3
    assert images.startswith("check  6 images to 8x8: ")
    assert images.endswith("; 3 classes")
    assert network == f"check  convnet of {parameters:,} parameters gives 3 logits for an image of 3x8x8"
    assert needs.startswith("check  Training takes at least 0.4 GB of ")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ({"path": "nowhere"}, "no such folder"),
        ({"path": None}, "the data set 'folder' needs the path of an image folder"),
        ({"path": "photos/ant"}, "photos/ant: must hold at least two class folders, found 0"),
    ],
)
def test_a_folder_that_is_missing_or_has_no_classes_is_refused(photos, prepare, message):
    assert refusal(photos, prepare).endswith(message)


def test_a_path_may_begin_in_the_home_folder(photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos))
    assert look(Path("elsewhere").absolute().parent, {"path": "~/photos"})[0].startswith("check  6 images")
    assert open_source(prepare_params(path="~/photos"), Path(), Path()).classes == ("ant", "bee", "cat")
    monkeypatch.setenv("HOME", "/nowhere")
    assert refusal(photos, {"path": "~/photos"}) == ("params.yaml: prepare.path = '/nowhere/photos': no such folder")


def test_published_data_is_not_looked_for(tmp_path):
    for name, images in {"digits": "1,797", "mnist": "70,000", "cifar10": "60,000"}.items():
        line, network, _ = look(tmp_path, {"dataset": name, "path": None})
        assert line.startswith(f"check  {images} images to 8x8: ")
        assert "10 logits" in network


@pytest.mark.parametrize("name", ["lenet5", "tiny"])
def test_a_network_that_cannot_take_this_image_size_is_refused(photos, name):
    assert f"{name!r}" in refusal(photos, network=name)
    assert look(photos, {"input_size": 28}, network=name)


def test_weights_must_exist_and_fit(photos):
    assert refusal(photos, weights="gone.pth") == "params.yaml: train.weights = 'gone.pth': no such file"
    torch.save(build("convnet", **CONVNET | {"channels": 1}).state_dict(), photos / "grey.pth")
    line = refusal(photos, weights="grey.pth")
    assert line.startswith(
        "params.yaml: train.weights = 'grey.pth': does not fit the network 'convnet'; of another shape"
    )
    torch.save(build("convnet", **CONVNET).state_dict(), photos / "right.pth")
    assert look(photos, weights="right.pth", epochs=0)


def test_weights_and_teacher_may_lie_in_the_home_folder(photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos / "home"))
    network = build("convnet", **CONVNET)
    save_model(photos / "home/teacher.safetensors", ModelFile(network, "convnet", CONVNET))
    torch.save(network.state_dict(), photos / "home/right.pth")
    given = {"weights": "~/right.pth", "teacher": "~/teacher.safetensors"}
    assert look(photos, **given)
    assert [path.parent for path in train_params(**given).files(Path("elsewhere"))] == [photos / "home"] * 2
    (photos / "home/right.pth").unlink()
    assert refusal(photos, **given) == "params.yaml: train.weights = '~/right.pth': no such file"


def test_a_teacher_must_know_these_classes(photos):
    assert refusal(photos, teacher="gone") == "params.yaml: train.teacher = 'gone': no such file"
    arguments = CONVNET | {"num_classes": 2}
    save_model(photos / "other.safetensors", ModelFile(build("convnet", **arguments), "convnet", arguments))
    line = refusal(photos, teacher="other.safetensors")
    assert line.endswith("train.teacher = 'other.safetensors': has num_classes 2, the data set 3")


def test_what_is_frozen_must_be_in_the_network(photos):
    assert "names no part of the network" in refusal(photos, freeze=["layer1"])


def test_a_batch_too_large_for_the_memory_is_refused(photos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(preflight, "total_memory", lambda: 500_000_000)
    line = refusal(photos, batch_size=65_536)
    assert line.startswith("params.yaml: train.batch_size = 65536: training takes at least ")
    assert line.endswith(" of memory, this machine has 0.5 GB")
    assert look(photos, batch_size=65_536, shards=64), "one part of a batch after the other"


def test_a_network_too_large_for_this_machine_is_refused_before_it_is_built(photos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(preflight, "new_original", None)
    monkeypatch.setattr(preflight, "total_memory", lambda: 25_000_000_000)
    line = refusal(photos, {"image_size": 1024}, network="cnn", batch_size=2)
    assert line.startswith("params.yaml: train.network = 'cnn': training takes at least 333.2 GB")


def test_frozen_weights_need_neither_gradient_nor_moments(photos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(preflight, "total_memory", lambda: 900_000_000)
    assert refusal(photos, {"image_size": 64}, network="cnn", batch_size=2).endswith("this machine has 0.9 GB")
    assert look(photos, {"image_size": 64}, network="cnn", batch_size=2, freeze=["fc1"])


def test_a_gpu_is_asked_for_its_own_memory(photos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda number: type("GPU", (), {"total_memory": 100_000_000})
    )
    assert refusal(photos).endswith("this machine has 0.1 GB")


def test_a_disk_that_is_too_full_for_all_snapshots_is_refused(photos, monkeypatch):
    network = build("convnet", **CONVNET)
    weights = sum(4 * tensor.numel() for tensor in network.parameters())
    images = 2 * 6 * 3 * 8 * 8
    disk = type("Disk", (), {"free": images + 12 * weights})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: disk)
    assert look(photos, epochs=100, snapshots=6)
    assert refusal(photos, epochs=8).startswith("params.yaml: train.snapshots = 0: the files of a run take ")
    (photos / "models").mkdir()
    (photos / "models/old").write_bytes(b"x" * weights)
    assert look_ahead(prepare_params(), train_params(epochs=8), photos, [photos / "models"])


def test_activations_are_those_that_the_layers_keep_for_the_gradient():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))
    image = 1 * 64 * 4
    after_relu = 4 * 64 * 4  # which the ReLU and the linear layer share, as the input of one is the output of another
    assert count_activations(network, torch.zeros(2, 1, 8, 8)) == image + after_relu


def test_a_network_that_fails_to_train_has_no_activations_to_count():
    class Broken(nn.Module):
        def forward(self, images):
            raise RuntimeError("no")

    assert count_activations(Broken(), torch.zeros(2, 1, 8, 8)) == 0


def test_the_stage_prints_it_and_a_fault_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("  dataset: digits ", "  dataset: folder "))
    with pytest.raises(InputError, match=r"prepare.path = None"):
        check.main()
    assert [path.name for path in Path().iterdir()] == ["params.yaml"]
    assert capsys.readouterr().out == ""
    Path("params.yaml").write_text(text)
    check.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["1,797", "cnn", "Training", "13"]
    assert Path("data/checked").read_text() == "params.yaml is valid\n"
