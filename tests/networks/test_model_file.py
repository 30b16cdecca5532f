import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lightweight.core.errors import InputError
from lightweight.data.dataset_file import save_dataset
from lightweight.networks.factory import build
from lightweight.networks.model_file import ModelFile, load_model, new_model, save_model

REBUILD = """
import sys
from pathlib import Path
import torch
from lightweight.networks.model_file import load_model, save_model
checkpoint = load_model(Path(sys.argv[1]))
save_model(Path(sys.argv[2]), checkpoint)
print(checkpoint.model(torch.ones(1, 3, 8, 8)).tolist())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture
def trained(colour_dataset) -> ModelFile:
    """A network with weights and BatchNorm statistics that no initialisation gives, and notes."""
    checkpoint = new_model("cnn", False, colour_dataset)
    for tensor in checkpoint.model.state_dict().values():
        tensor.copy_((torch.rand(tensor.shape) + 0.1) * 10 / tensor.shape.numel() ** 0.5)
    return replace(checkpoint, notes={"lr": 0.1, "epoch": 3})


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load_model(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_equal(found: nn.Module, expected: nn.Module) -> None:
    ours, theirs = found.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor)


def test_a_saved_model_comes_back_bitwise_in_evaluation_mode(path, trained):
    save_model(path, trained)
    found = load_model(path)
    assert_equal(found.model, trained.model)
    assert (found.network, found.arguments, found.notes) == (trained.network, trained.arguments, trained.notes)
    assert not any(module.training for module in found.model.modules())


class Versioned(nn.Linear):
    """A layer that asks which version of it wrote the weights, as MnasNet of torchvision does."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *others) -> None:
        assert local_metadata.get("version") == self._version
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)


def versioned(channels: int, image_size: int, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Versioned(channels * image_size**2, num_classes))


def test_a_layer_that_asks_for_its_version_is_loaded(path, colour_dataset):
    saved = new_model("tests.networks.test_model_file:versioned", False, colour_dataset)
    save_model(path, saved)
    assert_equal(load_model(path).model, saved.model)


def test_a_new_model_fits_the_data_set(colour_dataset):
    checkpoint = new_model("convnet", False, colour_dataset)
    assert checkpoint.network == "convnet"
    assert checkpoint.arguments == {"channels": 3, "image_size": 8, "num_classes": 2, "small_stem": False}
    assert checkpoint.notes == {}
    assert checkpoint.model(colour_dataset.normalize(colour_dataset.val.images)).shape == (20, 2)


def test_a_fresh_process_rebuilds_the_network_from_the_file_and_saves_equal_bytes(path, trained, start_python):
    save_model(path, trained)
    with torch.no_grad():
        expected = trained.model.eval()(torch.ones(1, 3, 8, 8))
    copy = path.with_name("copy")
    output, errors = start_python(REBUILD, path, copy, PYTHONHASHSEED="1").communicate(timeout=60)
    assert errors == ""
    torch.testing.assert_close(torch.tensor(json.loads(output)), expected)
    assert path.read_bytes() == copy.read_bytes()


def test_equal_weights_give_equal_bytes_in_every_memory_format(path, trained):
    files = []
    for layout in (torch.contiguous_format, torch.channels_last):
        trained.model.to(memory_format=layout)
        save_model(path, trained)
        files.append(path.read_bytes())
    assert files[0] == files[1]


def test_other_notes_or_weights_give_other_bytes(path, trained):
    files = set()
    for notes in ({"epoch": 1}, {"epoch": 2}):
        save_model(path, replace(trained, notes=notes))
        files.add(path.read_bytes())
    trained.model.get_parameter("fc2.bias").data[0] += 1
    save_model(path, replace(trained, notes=notes))
    files.add(path.read_bytes())
    assert len(files) == 3


def test_a_model_of_another_data_set_is_refused(path, trained, tiny_dataset, colour_dataset):
    save_model(path, trained)
    assert load_model(path, colour_dataset).arguments == trained.arguments
    with pytest.raises(InputError, match=r"has channels 3, the data set 1; `dvc repro` makes it anew"):
        load_model(path, tiny_dataset)


def test_loading_uses_up_no_random_numbers_though_building_does(path, trained):
    save_model(path, trained)
    before = torch.random.get_rng_state()
    load_model(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    build(trained.network, **trained.arguments)
    assert not torch.equal(torch.random.get_rng_state(), before)


def test_saving_leaves_the_model_as_it_is(path, trained):
    trained.model.train()
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    save_model(path, trained)
    assert all(module.training for module in trained.model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.model.state_dict().items())
    assert trained.model.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_weights_can_be_read_without_this_project(path, trained):
    save_model(path, trained)
    found = load_file(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in trained.model.state_dict().items())


def test_cnn_takes_25_megabytes_for_mnist(path, tiny_dataset):
    save_model(path, new_model("cnn", False, tiny_dataset))
    assert path.stat().st_size == pytest.approx(25.08e6, rel=0.01)


@pytest.mark.parametrize(("name", "given"), [("cnn", "convnet"), ("convnet", "cnn")])
def test_the_weights_of_another_network_are_refused(path, colour_dataset, name, given):
    save_model(path, replace(new_model(name, False, colour_dataset), network=given))
    assert refusal(path).startswith(f"{path}: the weights do not fit the network {given!r}: conv1.")


def test_a_weight_of_another_shape_is_named_with_both_shapes(path, colour_dataset):
    checkpoint = new_model("convnet", False, colour_dataset)
    save_model(path, replace(checkpoint, arguments=checkpoint.arguments | {"num_classes": 3}))
    detail = "fc.bias is float32 (2,), must be float32 (3,); fc.weight is float32 (2, 128), must be float32 (3, 128)"
    assert refusal(path) == f"{path}: the weights do not fit the network 'convnet': {detail}"


def test_a_network_that_is_no_longer_there_is_named(path, colour_dataset):
    save_model(path, replace(new_model("convnet", False, colour_dataset), network="no_such_module:build"))
    assert "'no_such_module:build' cannot be imported" in refusal(path)


def test_a_damaged_file_is_refused(path, colour_dataset):
    save_model(path, new_model("convnet", False, colour_dataset))
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(path).startswith(f"{path}: damaged or not a safetensors file: ")


def test_a_data_set_is_not_a_model_file(path, colour_dataset):
    save_dataset(path, colour_dataset)
    assert refusal(path) == f"{path}: not a model file: names no network"


def test_a_pickle_is_not_loaded(path):
    torch.save({"weight": torch.zeros(2)}, path)
    assert refusal(path).startswith(f"{path}: damaged or not a safetensors file: ")


def test_a_model_file_of_another_version_is_refused(path, colour_dataset):
    checkpoint = new_model("convnet", False, colour_dataset)
    del checkpoint.arguments["small_stem"]
    save_model(path, checkpoint)
    assert refusal(path).startswith(f"{path}: a model file of another version: built from {{'channels': 3, ")
