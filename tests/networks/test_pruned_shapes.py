"""Shapes alone rebuild a pruned network, in another process, and a file cannot ask for more than the dense one."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lightweight.core.errors import InputError
from lightweight.core.tensor_file import read_tensors, write_tensors
from lightweight.networks.factory import build
from lightweight.networks.model_file import ModelFile, load_model, save_model
from lightweight.networks.pruned_shapes import changed_shapes, shrink_to
from tests.contract import ROOT
from tests.examples import noise, prune_in_place

RELOAD = """
import sys
from pathlib import Path
import torch
from lightweight.networks.model_file import load_model, save_model
torch.set_num_threads(1)
checkpoint = load_model(Path(sys.argv[1]))
size = checkpoint.arguments["image_size"]
images = torch.linspace(-1, 1, 2 * checkpoint.arguments["channels"] * size**2).view(2, -1, size, size)
print(checkpoint.model(images).tolist())
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch_pruning", "pickle5", "dill"}))
save_model(Path(sys.argv[2]), checkpoint)
"""

NETWORKS = ["cnn", "lenet300", "resnet20", "torchvision/resnet18", "torchvision/mobilenet_v3_small"]


def pruned(name: str) -> tuple[ModelFile, nn.Module]:
    size = 32 if "/" in name else 28
    arguments = {"channels": 1, "image_size": size, "num_classes": 10, "small_stem": "resnet18" in name}
    torch.manual_seed(0)
    dense = build(name, **arguments)
    torch.manual_seed(0)
    model = build(name, **arguments)
    prune_in_place(model, noise(1, size), method="structured", amount=0.6)
    return ModelFile(model.eval(), name, arguments, shapes=changed_shapes(dense, model)), dense


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fresh_process_gives_the_same_bits_from_the_file_alone(tmp_path, name):
    checkpoint, dense = pruned(name)
    path, copy = tmp_path / "pruned.safetensors", tmp_path / "copy.safetensors"
    save_model(path, checkpoint)
    assert 0 < len(checkpoint.shapes) < len(dense.state_dict())
    assert {key: list(tensor.shape) for key, tensor in load_file(path).items() if key in checkpoint.shapes} == (
        checkpoint.shapes
    )
    command = [sys.executable, "-c", RELOAD, str(path), str(copy)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    logits, modules = done.stdout.splitlines()
    size = checkpoint.arguments["image_size"]
    images = torch.linspace(-1, 1, 2 * size**2).view(2, 1, size, size)
    with torch.no_grad():
        expected = checkpoint.model(images)
    assert torch.equal(torch.tensor(json.loads(logits)), expected)
    assert modules == "[]"
    assert copy.read_bytes() == path.read_bytes()


def test_layers_know_their_new_widths():
    checkpoint, _ = pruned("torchvision/mobilenet_v3_small")
    again = build(checkpoint.network, **checkpoint.arguments)
    shrink_to(again, checkpoint.shapes)
    assert any(1 < module.groups == module.in_channels for module in again.modules() if isinstance(module, nn.Conv2d))
    for expected, found in zip(checkpoint.model.modules(), again.modules(), strict=True):
        for name in ("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features"):
            assert getattr(found, name, None) == getattr(expected, name, None), (found, name)


def test_an_unpruned_model_says_nothing_of_shapes(tmp_path):
    _, dense = pruned("lenet300")
    checkpoint = ModelFile(dense, "lenet300", pruned("lenet300")[0].arguments, shapes=changed_shapes(dense, dense))
    save_model(tmp_path / "file", checkpoint)
    assert "shapes" not in read_tensors(tmp_path / "file")[1]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"fc1.weight": [400, 784]}, "fc1.weight of shape [300, 784] cannot be cut to [400, 784]"),
        ({"fc1.weight": [0, 784]}, "fc1.weight of shape [300, 784] cannot be cut to [0, 784]"),
        ({"fc1.weight": [True, 784]}, "fc1.weight of shape [300, 784] cannot be cut to [True, 784]"),
        ({"fc1.weight": [30]}, "fc1.weight of shape [300, 784] cannot be cut to [30]"),
        ({"fc1.weight": "30"}, "fc1.weight of shape [300, 784] cannot be cut to 30"),
        ({"fc9.weight": [30, 784]}, "The network has no fc9.weight to make narrower"),
        ({"fc1.weight": [30, 784]}, "the weights do not fit the network 'lenet300': fc1.weight is float32 (300, 784)"),
    ],
)
def test_a_file_with_impossible_shapes_is_refused(tmp_path, shapes, message):
    _, dense = pruned("lenet300")
    about = {"network": "lenet300", "arguments": pruned("lenet300")[0].arguments, "notes": {}, "shapes": shapes}
    write_tensors(tmp_path / "file", dict(dense.state_dict()), about)
    with pytest.raises(InputError) as error:
        load_model(tmp_path / "file")
    assert message in str(error.value)


def test_a_file_whose_shapes_do_not_fit_each_other_is_refused(tmp_path):
    _, dense = pruned("lenet300")
    tensors = dict(dense.state_dict()) | {"fc1.weight": torch.zeros(30, 784)}
    about = {"network": "lenet300", "arguments": pruned("lenet300")[0].arguments, "notes": {}}
    write_tensors(tmp_path / "file", tensors, about | {"shapes": {"fc1.weight": [30, 784]}})
    with pytest.raises(InputError, match="Network 'lenet300' does not accept images of shape"):
        load_model(tmp_path / "file")


def test_a_shape_for_a_bias_that_is_not_there_is_refused():
    model = build("tiny", 1, 28, 10, small_stem=False)
    with pytest.raises(InputError, match=r"The network has no conv1\.bias to make narrower"):
        shrink_to(model, {"conv1.bias": [3]})
