"""A trained network is compressed as it is: its images are those of its training, and what does not fit is one line."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from torch import nn

from lightweight.core.errors import InputError
from lightweight.core.torchvision_compat import torchvision
from stages import check
from tests.contract import ROOT
from tools.adopt import __main__ as adopt
from tools.adopt.params_file import format_value, set_values
from tools.adopt.published import find_settings
from tools.recipe.experiment import flatten

SHADES = {"dark": 40, "middle": 120, "pale": 220}
OWN = [
    "prepare.image_size=16",
    "prepare.channels=1",
    "prepare.normalization={mean: [0.5], std: [0.25]}",
    "prepare.resize={shorter_side: 20, interpolation: bicubic}",
]
NETWORK = """
from torch import nn

def build(channels, image_size, num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with grey images of three shades, a network for them, and weights for which it is always right."""
    for number in range(12):
        name = list(SHADES)[number % 3]
        path = tmp_path / f"photos/{name}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((24 + number, 31), SHADES[name] + number, dtype=np.uint8)).save(path)
    (tmp_path / "shades.py").write_text(NETWORK)
    save(tmp_path / "right.pth", [-4.0, 0.0, 4.0], [-3.5, 0.0, -3.5])
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/folder.yaml").write_text((ROOT / "recipes/folder.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shades", raising=False)
    return tmp_path


def save(path: Path, weights: list[float], biases: list[float]) -> None:
    torch.save({"2.weight": torch.tensor(weights)[:, None], "2.bias": torch.tensor(biases)}, path)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, weights: str = "right.pth", chosen: list[str] = OWN) -> None:
    own = () if "--network" in arguments else ("--module", "shades:build")
    settings = [word for change in chosen for word in ("--set", change)]
    monkeypatch.setattr(sys, "argv", ["adopt", *own, "--weights", weights, "--images", "photos", *arguments, *settings])
    threads = torch.get_num_threads()
    try:
        adopt.main()
    finally:
        torch.set_num_threads(threads)


def refusal(project: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, **given: object) -> str:
    before = sorted(project.rglob("*.yaml"))
    with pytest.raises(InputError) as error:
        run(monkeypatch, *arguments, **given)
    assert "\n" not in str(error.value)
    assert sorted(project.rglob("*.yaml")) == before, "nothing was written"
    return str(error.value)


def read(path: str) -> dict:
    return YAML(typ="safe").load(Path(path))


def test_the_file_is_complete_and_only_compresses(project, monkeypatch, capsys):
    run(monkeypatch)
    found, whole = read("params.yaml"), read(str(ROOT / "params.yaml"))
    assert flatten(found, whole).keys() == flatten(whole, found).keys()
    params = check.read_params()
    assert params.prepare.model_dump(exclude={"storage", "val_fraction", "test_fraction"}) == {
        "dataset": "folder",
        "path": "photos",
        "image_size": 16,
        "resize": {"shorter_side": 20, "interpolation": "bicubic"},
        "input_size": None,
        "channels": 1,
        "normalization": {"mean": [0.5], "std": [0.25]},
    }
    assert (params.train.network, params.train.weights, params.train.epochs) == ("shades:build", "right.pth", 0)
    assert (params.swa.start, params.prune.amount, params.bn_update.num_images) == (None, 0, 0)
    assert (params.sensitivity.amount, params.quantize.method) == (None, "static")
    said = capsys.readouterr().out.splitlines()
    order = (
        "3 classes in the order of the folder names, which must be that of the logits: 0 = dark, 1 = middle, 2 = pale"
    )
    assert said[:3] == [
        "adopt  images as --set says",
        f"adopt  12 images; {order}",
        "adopt  accuracy 100.0% [75.8%, 100.0%] on 12 of these images",
    ]
    assert said[3].endswith("-> params.yaml")
    assert said[4].startswith("next   make repro    (about ")


def test_the_comments_of_the_template_stay(project, monkeypatch):
    run(monkeypatch)
    template, found = (Path(name).read_text().splitlines() for name in ("recipes/folder.yaml", "params.yaml"))
    comments = [[line.partition("#")[2] for line in lines if line.startswith(" ")] for lines in (template, found)]
    assert comments[0] == comments[1]


def test_other_statistics_give_another_accuracy_and_no_better_than_chance_is_refused(project, monkeypatch, capsys):
    run(monkeypatch, chosen=[*OWN, "prepare.normalization={mean: [0.3], std: [0.25]}"])
    assert "accuracy 66.7%" in capsys.readouterr().out
    Path("params.yaml").unlink()
    save(project / "wrong.pth", [4.0, 0.0, -4.0], [-3.5, -9.0, -3.5])
    line = refusal(project, monkeypatch, weights="wrong.pth")
    rule = "right for 0 of 12 images, and for 0.0% on average of the 3 classes among them, no more than by chance: are"
    assert line.startswith(rule)


def test_a_network_that_always_names_one_class_is_refused_also_where_that_is_the_largest(project, monkeypatch):
    save(project / "constant.pth", [0.0] * 3, [0.0, 1.0, 0.0])
    exactly = "right for 4 of 12 images, and for 33.3% on average of the 3 classes among them, no more than by chance"
    assert refusal(project, monkeypatch, weights="constant.pth").startswith(exactly)
    for number in range(12, 32):
        copy = project / f"photos/middle/{number}.png"
        copy.write_bytes((project / "photos/middle/1.png").read_bytes())
    most = "right for 24 of 32 images, and for 33.3% on average of the 3 classes among them, no more than by chance"
    assert refusal(project, monkeypatch, weights="constant.pth").startswith(most)
    run(monkeypatch)


def test_the_images_of_the_test_folder_are_scored_and_no_others(project, monkeypatch, capsys):
    """Those of the training, which come first, are of other shades than their folders say."""
    others = dict(zip(SHADES, ["pale", "dark", "middle"], strict=True))
    for name, other in others.items():
        shutil.copytree(project / "photos" / name, project / "split/test" / name)
        shutil.copytree(project / "photos" / name, project / "split/train" / other)
    run(monkeypatch, "--images", "split")
    assert "accuracy 100.0% [75.8%, 100.0%] on 12 of these images" in capsys.readouterr().out


def test_weights_for_another_number_of_classes_are_refused(project, monkeypatch):
    save(project / "five.pth", [0.0] * 5, [0.0] * 5)
    line = "five.pth: the weights are for 5 classes, the folder has 3"
    assert refusal(project, monkeypatch, weights="five.pth") == line


def test_weights_of_another_network_are_refused(project, monkeypatch):
    torch.save(nn.Conv2d(1, 3, 3).state_dict(), "other.pth")
    line = refusal(project, monkeypatch, weights="other.pth")
    rule = "does not fit the network 'shades:build'; missing: 2.weight, 2.bias; unexpected: weight, bias"
    assert line == f"params.yaml: train.weights = 'other.pth': {rule}"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("prepare.image_size=7", "params.yaml: prepare.image_size = 7: must be greater than or equal to 8"),
        ("prepare.size=8", "--set prepare.size: no such key in params.yaml"),
        ("prepare.image_size", "--set prepare.image_size: must be KEY=VALUE"),
        ("train.epochs=3", "--set train.epochs: is 0 in what this command writes: edit params.yaml afterwards"),
        ("prune.amount=0.5", "--set prune.amount: is 0 in what this command writes: edit params.yaml afterwards"),
        ("swa.start=1", "--set swa.start: is null in what this command writes: edit params.yaml afterwards"),
        (
            "train.weights=null",
            "--set train.weights: is right.pth in what this command writes: edit params.yaml afterwards",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_refused(project, monkeypatch, change, rule):
    assert refusal(project, monkeypatch, chosen=[*OWN, change]) == rule


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("--module", "nets", "--module must be PACKAGE.MODULE:FUNCTION, is 'nets'"),
        ("--module", "nets:", "--module must be PACKAGE.MODULE:FUNCTION, is 'nets:'"),
        ("--module", "", "--module must be PACKAGE.MODULE:FUNCTION, is ''"),
        ("--module", "timm/net", "--module must be PACKAGE.MODULE:FUNCTION, is 'timm/net'"),
        ("--network", "cnn", "--network must be timm/NAME or torchvision/NAME, is 'cnn'; --module takes others"),
        ("--output", "photos", "photos: is a folder: --output must name a file"),
    ],
)
def test_an_option_that_cannot_be_is_refused(project, monkeypatch, option, value, rule):
    assert refusal(project, monkeypatch, option, value) == rule
    if option == "--output":
        assert refusal(project, monkeypatch, option, value, "--force") == rule


def test_the_images_of_an_own_network_must_be_said(project, monkeypatch):
    line = refusal(project, monkeypatch, chosen=OWN[:3])
    example = "--set 'prepare.resize={shorter_side: 72, interpolation: bilinear}'"
    assert line == f"nothing says with which images shades:build was trained: say it as in {example}"


def test_edits_that_git_does_not_have_are_not_overwritten(project, monkeypatch, capsys):
    Path("params.yaml").write_text("mine: 1\n")
    rule = "params.yaml: is there and has content that git does not have; --force replaces it, --output names another"
    assert refusal(project, monkeypatch) == rule
    git = ("git", "-c", "user.name=Test", "-c", "user.email=test@example.com")
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "start")):
        subprocess.run([*git, *command], check=True)
    Path("params.yaml").write_text("mine: 2\n")
    assert refusal(project, monkeypatch) == rule
    assert Path("params.yaml").read_text() == "mine: 2\n"
    run(monkeypatch, "--output", "other.yaml")
    assert Path("params.yaml").read_text() == "mine: 2\n"
    assert "next   cp other.yaml params.yaml && make repro" in capsys.readouterr().out
    run(monkeypatch, "--force")
    assert capsys.readouterr().out.splitlines()[3].endswith("-> params.yaml in place of the old one")
    subprocess.run([*git, "commit", "--quiet", "-am", "new"], check=True)
    run(monkeypatch)


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "IMAGENET1K_V2", "mine.pth"])
def test_images_of_torchvision_are_those_of_the_transforms_of_the_weights(weights):
    known = torchvision("models").ResNet50_Weights
    steps = (known[weights] if weights in known.__members__ else known.DEFAULT).transforms()
    found, origin = find_settings("torchvision/resnet50", weights, ())
    assert YAML(typ="safe").load("\n".join(f"{key}: {value}" for key, value in found.items())) == {
        "prepare.image_size": steps.crop_size[0],
        "prepare.resize": {"shorter_side": steps.resize_size[0], "interpolation": "bilinear"},
        "prepare.channels": 3,
        "prepare.normalization": {"mean": list(steps.mean), "std": list(steps.std)},
    }
    name = "IMAGENET1K_V1" if weights == "IMAGENET1K_V1" else "IMAGENET1K_V2"
    assert origin.startswith(f"images as for torchvision's ResNet50_Weights.{name}: image_size 224, ")


def fake_timm(**changed: object) -> ModuleType:
    config = {"input_size": (1, 240, 240), "crop_pct": 0.9, "crop_mode": "center", "interpolation": "bicubic"}
    timm = ModuleType("timm")
    timm.is_model = lambda name: name == "net"  # type: ignore[attr-defined]
    timm.list_models = lambda: ["net", "other"]  # type: ignore[attr-defined]
    about = SimpleNamespace(**config | {"mean": (0.5,), "std": (0.25,)} | changed)
    timm.get_pretrained_cfg = lambda name: about  # type: ignore[attr-defined]
    return timm


def test_images_of_timm_are_those_of_its_configuration(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    found, origin = find_settings("timm/net", "mine.pth", ("prepare.channels",))
    assert found == {
        "prepare.image_size": "240",
        "prepare.resize": "{shorter_side: 266, interpolation: bicubic}",
        "prepare.channels": "1",
        "prepare.normalization": "{mean: [0.5], std: [0.25]}",
    }
    assert origin.startswith("images as for timm's net, but for what --set says: image_size 240, ")
    monkeypatch.setitem(sys.modules, "timm", fake_timm(crop_mode="squash"))
    assert find_settings("timm/net", "mine.pth", ("prepare.resize",))[0] == found
    with pytest.raises(InputError, match=r"resized in another way \(crop mode squash, bicubic\)"):
        find_settings("timm/net", "mine.pth", ())


def test_an_unknown_name_suggests_the_nearest(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    for name, nearest in (("timm/othr", "timm/other"), ("torchvision/resnet81", "torchvision/resnet18")):
        with pytest.raises(InputError, match=f"did you mean {nearest}"):
            find_settings(name, "mine.pth", ())


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "a b",
        "null",
        "true",
        "1e5",
        "0x10",
        "C:",
        "a: b",
        "a #b",
        "ü",
        "-",
        ".inf",
        '"',
        {"a": [1, "x"]},
        [1.5],
    ],
)
def test_values_are_written_so_that_yaml_reads_them_again(value):
    template = "train:\n  weights: null            # a file\n"
    text = set_values(template, {"train.weights": format_value(value)})
    assert YAML(typ="safe").load(text) == {"train": {"weights": value}}
    assert text.endswith(" # a file\n")
