"""A mistake ends a command with one line that names the file, the key, the value and the rule, and exit code 1."""

import re
import shutil
import sys

import pytest
import torch

from lightweight.core.errors import InputError
from lightweight.core.files import read_csv
from lightweight.data.dataset_file import save_dataset
from lightweight.networks.model_file import load_model, new_model, save_model
from stages import check
from tests.contract import ROOT
from tests.workspace import Workspace, copy_project

NETWORKS = """
from torch import nn

def wide(channels, image_size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, num_classes + 1))

class Broken(nn.Module):
    def __init__(self, pixels, classes):
        super().__init__()
        self.fc = nn.Linear(pixels, classes)

    def forward(self, images):
        return self.fc(images.flatten(1)) * (float("nan") if self.training else 1)

def broken(channels, image_size, num_classes):
    return Broken(channels * image_size**2, num_classes)
"""

MISTAKES = {
    "  amount: 0.8 ": ("  amuont: 0.8 ", "params.yaml: prune.amuont = 0.8: unknown key; did you mean amount?"),
    "  epochs: 10 ": ("  epoch: 3\n  epochs: 10 ", "params.yaml: train.epoch = 3: unknown key; did you mean epochs?"),
    "  amount: 0.8  ": (
        "  amount: '0.7'  ",
        "params.yaml: prune.amount = '0.7': must be a share such as 0.7 without quotes, auto, or shares by layer",
    ),
    "  amount: 0.8   ": ("  amount: true   ", "params.yaml: prune.amount = True: must be a share such as 0.7"),
    "prune:\n": ("prun:\n", "params.yaml: prun: unknown section; did you mean prune?"),
    "  license: null ": ("  license: [MIT] ", "params.yaml: quantize.license = ['MIT']: must be "),
    "  method: dynamic ": ("  method: int3 ", "params.yaml: quantize.method = 'int3': must be 'none', 'fp16', "),
    "  calibration_images: 512 ": (
        "  calibration_images: 0 ",
        "params.yaml: quantize.calibration_images = 0: must be greater than or equal to 1",
    ),
    "  dataset: digits ": (
        "  dataset: letters ",
        "params.yaml: prepare.dataset = 'letters': must be 'digits', 'mnist'",
    ),
    "  network: cnn\n": (
        "  network: resnet18\n",
        "params.yaml: train.network = 'resnet18': unknown network 'resnet18'; did you mean torchvision/resnet18?",
    ),
    "  lr: 0.01 ": ("  lr: .nan ", "params.yaml: train.lr = nan: must be a finite number"),
    "  weight_decay: 0.01\n": (
        "  weight_decay: much\n",
        "params.yaml: train.weight_decay = 'much': must be a valid number",
    ),
    "  scope: layer ": ("  scope: [layer] ", "params.yaml: prune.scope = ['layer']: must be 'layer' or 'global'"),
    "  start: 5 ": ("  start: 10 ", "params.yaml: swa.start = 10: must be less than train.epochs = 10"),
    "  batch_sizes: [1, 64]": (
        "  batch_sizes: [1, 0]",
        "params.yaml: benchmark.batch_sizes.1 = 0: must be greater than",
    ),
    "  epochs: 10               # 0": (
        "  epochs: 0               # 0",
        "params.yaml: train.epochs = 0: without an epoch of training, train.weights must name the weights",
    ),
    "  input_size: null ": (
        "  input_size: 20 ",
        "params.yaml: prepare.input_size = 20: must be at least prepare.image_size = 28, or null",
    ),
    "  normalization: data ": (
        "  normalization: imagenet ",
        "params.yaml: prepare.normalization = 'imagenet': ImageNet is in colour: needs prepare.channels = 3",
    ),
    "  weights: null ": ("  weights: '' ", "params.yaml: train.weights = '': must have at least 1 character"),
    "  freeze: [] ": ("  freeze: conv1 ", "params.yaml: train.freeze = 'conv1': must be a valid list"),
    "    crop: 0 ": ("    crop: 1.5 ", "params.yaml: train.augment.crop = 1.5: must be a valid integer"),
    "threads: 1 ": ("threads: true ", "params.yaml: threads = True: must be a valid integer"),
}


@pytest.fixture
def project(tmp_path) -> Workspace:
    return copy_project(tmp_path / "project")


@pytest.fixture
def prepared(project, tiny_dataset) -> Workspace:
    """A project whose data set is ready and small."""
    save_dataset(project.path / "data/prepared.safetensors", tiny_dataset)
    (project.path / "nets.py").write_text(NETWORKS)
    return project


def one_line(output: str) -> str:
    lines = [line for line in output.splitlines() if not line.startswith("epoch")]
    assert len(lines) == 1, output
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


@pytest.mark.parametrize("right", MISTAKES)
def test_check_refuses_a_mistake_in_params(project, monkeypatch, right):
    wrong, message = MISTAKES[right]
    project.set_params((right, wrong))
    monkeypatch.chdir(project.path)
    with pytest.raises(InputError) as caught:
        check.main()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not (project.path / "data").exists()


def test_numbers_with_an_exponent_are_numbers(project, monkeypatch):
    project.set_params(("  lr: 0.01 ", "  lr: 1e-2 "), ("  lr: 0.003\n", "  lr: 1e-05\n"))
    monkeypatch.chdir(project.path)
    check.main()
    assert (project.path / "data/checked").exists()


def test_a_bad_value_stops_dvc_before_any_work(project):
    project.set_params(("  amount: 0.8 ", "  amount: 1.7 "))
    project.run("dvc", "config", "--local", "core.no_scm", "true")
    output = project.run("dvc", "repro", code=255)
    assert [line for line in output.splitlines() if line.startswith("Running")] == ["Running stage 'check':"]
    assert "error: params.yaml: prune.amount = 1.7: must be less than 1\n" in output
    assert "Traceback" not in output


def test_a_missing_input_is_named(project):
    assert one_line(project.stage("train", code=1)) == "data/prepared.safetensors: no such file; `dvc repro` makes it"


def test_a_network_that_does_not_fit_the_classes_is_refused(prepared):
    prepared.set_params(("  network: cnn\n", "  network: nets:wide\n"))
    line = one_line(prepared.stage("train", code=1))
    assert line == "Network 'nets:wide' gives (2, 11) for 2 images; 10 classes need (2, 10)"
    assert not (prepared.path / "models").exists()


@pytest.mark.parametrize(
    ("old", "value", "message"),
    [
        ("  weights: null ", "  weights: no.pth ", "train.weights = 'no.pth': no such file"),
        ("  teacher: null ", "  teacher: no.pth ", "train.teacher = 'no.pth': no such file"),
        (
            "  freeze: [] ",
            "  freeze: [layer1] ",
            "train.freeze = 'layer1': names no part of the network; its parts are",
        ),
        ("  precision: fp32 ", "  precision: fp16 ", "train.precision = 'fp16': needs a CUDA GPU; fp32 and bf16 run"),
        ("  small_stem: false ", "  small_stem: true ", "train.small_stem = True: only for torchvision/ and timm/"),
    ],
)
def test_what_training_cannot_do_is_refused_before_the_first_epoch(prepared, monkeypatch, old, value, message):
    prepared.set_params(("  network: cnn\n", "  network: convnet\n"), (old, value))
    line = one_line(prepared.stage("train", code=1, CUDA_VISIBLE_DEVICES=""))
    assert line.startswith(f"params.yaml: {message}")
    assert not (prepared.path / "models").exists()


def test_a_loss_that_is_no_number_stops_with_epoch_and_learning_rate(prepared):
    prepared.set_params(
        ("  network: cnn\n", "  network: nets:broken\n"), ("schedule: onecycle ", "schedule: constant ")
    )
    line = one_line(prepared.stage("train", code=1))
    assert line == "The loss became nan in epoch 1 at a learning rate of 0.01: must stay finite"
    assert not (prepared.path / "models").exists()


def test_weights_of_another_network_are_refused(prepared):
    prepared.set_params(("  network: cnn\n", "  network: convnet\n"), ("  epochs: 10 ", "  epochs: 2 "))
    prepared.stage("train")
    path = prepared.path / "models/original.safetensors"
    wrong = load_model(path)
    wrong.model.conv1.weight = torch.nn.Parameter(torch.zeros(8, 1, 3, 3))
    save_model(prepared.path / "models/averaged.safetensors", wrong)
    line = one_line(prepared.stage("prune", code=1))
    assert line.startswith("models/averaged.safetensors: the weights do not fit the network 'convnet': conv1.weight is")
    path.write_bytes(path.read_bytes()[:-1000])
    prepared.set_params(("  start: 5 ", "  start: null "))
    assert one_line(prepared.stage("swa", code=1)).startswith("models/original.safetensors: damaged")


def test_early_stopping_keeps_the_best_epoch_and_averaging_says_what_it_lacks(prepared):
    prepared.set_params(
        ("  network: cnn\n", "  network: convnet\n"), ("  patience: 0 ", "  patience: 1 "), ("lr: 0.01 ", "lr: 1.0 ")
    )
    output = prepared.stage("train")
    rows = read_csv(prepared.path / "plots/train.csv")
    assert len(rows) < 5
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    assert f"epoch {best['epoch']}  val accuracy" in output
    snapshot = prepared.path / f"models/snapshots/{int(best['epoch']):04}.safetensors"
    kept = load_model(prepared.path / "models/original.safetensors").model.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in load_model(snapshot).model.state_dict().items())
    line = one_line(prepared.stage("swa", code=1))
    assert line == "params.yaml: swa.start = 5: training stopped before that epoch, see train.patience"


def test_the_newest_snapshots_are_kept_and_averaging_goes_on_from_one_of_them(prepared):
    prepared.set_params(
        ("  network: cnn\n", "  network: convnet\n"),
        ("  snapshots: 0 ", "  snapshots: 2 "),
        ("  start: 5 ", "  start: 9 "),
    )
    prepared.stage("train")
    assert sorted(path.name for path in (prepared.path / "models/snapshots").iterdir()) == [
        "0009.safetensors",
        "0010.safetensors",
    ]
    assert "mean of 1 epoch  ->" in prepared.stage("swa")
    prepared.set_params(("  start: 9 ", "  start: 8 "))
    line = one_line(prepared.stage("swa", code=1))
    assert line == "params.yaml: swa.start = 8: must be one of the last train.snapshots = 2 epochs"


def test_a_file_that_disagrees_with_its_model_is_not_written(prepared, tiny_dataset):
    save_model(prepared.path / "models/recalibrated.safetensors", new_model("convnet", False, tiny_dataset))
    prepared.set_params(("  max_logit_error: 0.1 ", "  max_logit_error: 1e-9 "))
    prepared.set_params(("  max_drop: null           # layers", "  max_drop: 0.01           # layers"))
    line = one_line(prepared.stage("quantize", code=1))
    assert line.startswith("params.yaml: quantize.max_logit_error = 1e-09: exceeded: ")
    assert not (prepared.path / "models/optimized.onnx").exists()
    assert [row["kind"] for row in read_csv(prepared.path / "plots/fallback.csv")] == ["all"]


def test_a_full_disk_leaves_the_old_file_whole(prepared):
    old = (prepared.path / "data/prepared.safetensors").read_bytes()
    command = f"ulimit -f 400; exec {sys.executable} -m stages.prepare"
    output = prepared.run("bash", "-c", command, code=1)
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert re.fullmatch(r"error: work/prepare/[0-9a-f]+-1/0000.safetensors: not written: File too large", line)
    assert (prepared.path / "data/prepared.safetensors").read_bytes() == old
    assert [file.name for file in (prepared.path / "data").iterdir()] == ["prepared.safetensors"]


def test_without_network_the_message_says_what_to_put_where(project):
    project.set_params(("  dataset: digits ", "  dataset: fashion_mnist "))
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    output = project.stage("prepare", code=1, LIGHTWEIGHT_DATA=str(project.path / "raw"), **proxy)
    line = output.splitlines()[-1]
    assert line.startswith("error: params.yaml: prepare.dataset = 'fashion_mnist': not found and not downloaded")
    assert "train-images-idx3-ubyte.gz" in line
    assert "raw/FashionMNIST/raw, or use digits" in line
    assert "Traceback" not in output


def test_raw_folder_is_found_by_environment_then_dvc_root(mnist_raw, project):
    project.set_params(("  dataset: digits ", "  dataset: mnist "))
    assert "54000 + 6000 + 10000 images" in project.stage("prepare", LIGHTWEIGHT_DATA=str(mnist_raw))
    root = project.path / "elsewhere"
    shutil.copytree(mnist_raw, root / "data/raw")
    damaged = root / "data/raw/MNIST/raw/t10k-labels-idx1-ubyte"
    content = bytearray(damaged.read_bytes())
    content[5000] ^= 1
    damaged.write_bytes(content)
    line = one_line(project.stage("prepare", code=1, DVC_ROOT=str(root)))
    assert line.startswith(f"{damaged}: damaged: its MD5 is not")


def test_the_project_in_this_folder_is_valid(monkeypatch, tmp_path):
    shutil.copy2(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    check.main()
