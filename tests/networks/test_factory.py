import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import torch
from pydantic import AfterValidator
from torch import nn

from lightweight.core.errors import InputError
from lightweight.core.params import load_params
from lightweight.networks import factory as networks
from lightweight.networks.architectures import NETWORKS, _Residual
from lightweight.networks.factory import build, build_on_meta, validate_name
from lightweight.networks.model_file import ModelFile, load_model, save_model

OWN = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, channels, image_size, num_classes):
        super().__init__()
        self.linear = nn.Linear(channels * image_size**2, num_classes)

    def forward(self, images):
        logits = self.linear(images.flatten(1))
        {forward}

build = {build}
"""


@pytest.fixture
def own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """own_network(source): the name of a network `build` in a module of its own."""

    def write(source: str) -> str:
        (tmp_path / "own_network.py").write_text(source)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "own_network", raising=False)
        return "own_network:build"

    return write


def refusal(name: str) -> str:
    with pytest.raises(InputError) as error:
        build(name, channels=1, image_size=8, num_classes=10, small_stem=False)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 10), (3, 32, 5), (1, 24, 2), (3, 23, 7)])
def test_a_network_gives_one_logit_per_class_and_learns_with_all_its_weights(name, channels, size, classes):
    model = build(name, channels, size, classes, small_stem=False)
    logits = model(torch.rand(4, channels, size, size))
    assert logits.shape == (4, classes)
    logits.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_new_network_is_in_training_mode_with_its_convolutions_in_channels_last(name):
    model = build(name, 3, 24, 2, small_stem=False)
    assert all(module.training for module in model.modules())
    filters = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in filters)


@pytest.mark.parametrize("name", NETWORKS)
def test_building_leaves_batchnorm_statistics_as_they_start(name):
    state = build(name, 1, 24, 2, small_stem=False).state_dict()
    assert all((value == 0).all() for key, value in state.items() if "running_mean" in key or "num_batches" in key)
    assert all((value == 1).all() for key, value in state.items() if "running_var" in key)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_depend_on_the_random_state_alone(name):
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(next(build(name, 1, 24, 2, small_stem=False).parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# The totals of the papers, and of the Caffe and Keras definitions that the compression literature took them from.
@pytest.mark.parametrize(
    ("name", "channels", "size", "parameters"),
    [
        ("lenet5", 1, 28, 431_080),
        ("lenet300", 1, 28, 266_610),
        ("conv12", 1, 28, 20_410),
        ("tiny", 1, 28, 25_322),
        ("resnet20", 3, 32, 269_722),  # "0.27M" (He et al. 2016, table 6)
    ],
)
def test_a_published_network_has_the_published_number_of_parameters(name, channels, size, parameters):
    model = build(name, channels, size, 10, small_stem=False)
    assert sum(weight.numel() for weight in model.parameters()) == parameters


def test_resnet20_has_19_convolutions_in_three_widths_and_one_linear_layer():
    layers = [
        m for m in build("resnet20", 3, 32, 10, small_stem=False).modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    assert [layer.weight.shape[0] for layer in layers] == [16] * 7 + [32] * 6 + [64] * 6 + [10]
    strides = [layer.stride[0] for layer in layers[:-1]]
    assert [index for index, stride in enumerate(strides) if stride == 2] == [7, 13]


def test_the_shortcut_of_a_residual_block_subsamples_and_pads_with_zero_channels():
    block = _Residual(4, 10).eval()
    nn.init.zeros_(block.conv2.weight)
    images = torch.rand(2, 4, 6, 6)
    shortcut = block(images)
    assert torch.equal(shortcut[:, 3:7], images[:, :, ::2, ::2])
    assert not shortcut[:, :3].any()
    assert not shortcut[:, 7:].any()


def test_a_small_stem_is_only_for_published_networks():
    with pytest.raises(InputError, match=r"train.small_stem = True: only for torchvision/ and timm/"):
        build("tiny", 1, 28, 10, small_stem=True)


def test_convnet_is_two_convolutions_and_one_linear_layer():
    shapes = [tuple(weight.shape) for weight in build("convnet", 1, 28, 10, small_stem=False).state_dict().values()]
    assert shapes == [(16, 1, 3, 3), (16,), (32, 16, 3, 3), (32,), (10, 32 * 7 * 7), (10,)]


def test_nearly_all_weights_of_cnn_are_linear():
    model = build("cnn", 1, 28, 10, small_stem=False)
    linear = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    assert linear / sum(weight.numel() for weight in model.parameters()) == pytest.approx(0.998, abs=0.0005)


def test_a_network_of_your_own_is_built_by_its_name(own_network):
    name = own_network(OWN.format(forward="return logits", build="Own"))
    assert build(name, channels=3, image_size=8, num_classes=5, small_stem=False).linear.weight.shape == (5, 3 * 8 * 8)
    assert validate_name(name) == name


def test_an_unknown_network_is_refused_with_the_known_ones():
    built_in = "cnn, convnet, conv12, lenet300, lenet5, tiny, resnet20"
    other = "torchvision/NAME, timm/NAME, or package.module:function of your own"
    assert refusal("zzzzzz") == f"unknown network 'zzzzzz'; known are {built_in}, {other}"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("resnet18", "torchvision/resnet18"),
        ("RESNET50", "torchvision/resnet50"),
        ("efficientnet-b0", "torchvision/efficientnet_b0"),
        ("cnm", "cnn"),
    ],
)
def test_an_unknown_network_comes_with_the_one_that_is_most_like_it(name, meant):
    assert refusal(name) == f"unknown network {name!r}; did you mean {meant}?"


def test_an_unknown_network_in_a_section_is_one_line_with_file_key_value_and_rule(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("network: cnm\n")
    with pytest.raises(InputError) as error:
        load_params(path, network=Annotated[str, AfterValidator(validate_name)])
    assert str(error.value).startswith(f"{path}: network = 'cnm': unknown network 'cnm'; did you mean cnn?")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_module:build", "No module named 'no_such_module'"),
        (":build", "Empty module name"),
        ("tests.examples:no_such_function", "module 'tests.examples' has no attribute 'no_such_function'"),
    ],
)
def test_a_network_that_does_not_exist_is_named_with_the_reason(name, reason):
    assert refusal(name) == f"Network {name!r} cannot be imported: {reason}"


@pytest.mark.parametrize(
    ("source", "reason"),
    [("import no_such", "No module named 'no_such'"), ("def build(:", "invalid syntax"), ("size", "'size' is not def")],
    ids=["import", "syntax", "name"],
)
def test_a_module_that_fails_to_import_is_named_with_the_reason(own_network, source, reason):
    name = own_network(source)
    found = refusal(name)
    assert found.startswith(f"Network {name!r} cannot be imported: ")
    assert reason in found


@pytest.mark.parametrize(
    "name",
    [
        "antigravity:fly",
        "subprocess:Popen",
        "os.path:join",
        "builtins:exec",
        "sys:exit",
        "torch.hub:load",
        "pytest:main",
    ],
)
def test_a_module_outside_the_folder_is_refused_and_not_imported(name):
    assert refusal(name) == f"Network {name!r} must be a module in the project's folder: {Path.cwd()}"
    assert "antigravity" not in sys.modules


def test_a_module_beside_the_folder_is_refused(own_network, tmp_path, monkeypatch):
    name = own_network("raise AssertionError('executed')")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert "must be a module in the project's folder" in refusal(name)
    monkeypatch.syspath_prepend("..")
    assert "must be a module in the project's folder" in refusal(name)


def test_an_installed_module_is_refused_although_its_environment_lies_in_the_folder(own_network, tmp_path, monkeypatch):
    name = own_network("raise AssertionError('executed')")
    monkeypatch.setattr(networks, "INSTALLED", {str(tmp_path)})
    assert "must be a module in the project's folder" in refusal(name)


def test_a_module_in_a_folder_without_init_is_found(tmp_path, monkeypatch):
    (tmp_path / "own_networks").mkdir()
    (tmp_path / "own_networks" / "small.py").write_text(OWN.format(forward="return logits", build="Own"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert build("own_networks.small:build", 1, 8, 10, small_stem=False).linear.weight.shape == (10, 64)


def test_a_module_that_ends_the_process_is_named(own_network):
    name = own_network("import sys; sys.exit('bye')")
    assert refusal(name) == f"Network {name!r} cannot be imported: bye"


@pytest.mark.parametrize("name", [None, 7, ["cnn"], {"cnn": 1}])
def test_what_is_no_name_is_refused(name):
    assert refusal(name) == f"Network {name!r} must be a name"


@pytest.mark.parametrize("name", ["tiny", "torchvision/resnet18"])
@pytest.mark.parametrize(
    ("key", "value", "most"),
    [
        ("channels", 0, "16"),
        ("image_size", 100_000, "1,024"),
        ("image_size", 28.0, "1,024"),
        ("num_classes", 2**62, "100,000"),
        ("num_classes", True, "100,000"),
        ("channels", None, "16"),
    ],
)
def test_absurd_arguments_are_refused_before_memory_is_taken(name, key, value, most):
    arguments = {"channels": 1, "image_size": 28, "num_classes": 10, "small_stem": False} | {key: value}
    with pytest.raises(InputError) as error:
        build(name, **arguments)
    assert str(error.value) == f"Network {name!r}: {key} = {value!r}: must be an integer from 1 to {most}"


@pytest.mark.parametrize("name", [*NETWORKS, "torchvision/resnet18"])
def test_a_plan_has_the_names_shapes_and_types_of_the_network_but_no_memory(name):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    planned = build_on_meta(name, channels=1, image_size=32, num_classes=10, small_stem=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    state = build(name, channels=1, image_size=32, num_classes=10, small_stem=False).state_dict()
    assert {key: (value.shape, value.dtype) for key, value in planned.state_dict().items()} == {
        key: (value.shape, value.dtype) for key, value in state.items()
    }
    assert all(value.is_meta for value in planned.state_dict().values())


def test_a_network_that_needs_its_values_while_it_is_built_has_no_plan(own_network):
    name = own_network(OWN.format(forward="return logits", build="lambda **k: Own(**k) if torch.ones(1).item() else 0"))
    arguments = {"channels": 1, "image_size": 8, "num_classes": 10, "small_stem": False}
    assert build_on_meta(name, **arguments) is None
    assert build(name, **arguments).linear.weight.shape == (10, 64)


@pytest.mark.parametrize(
    "source", ["build = 3", "build = dict", "def build(): ...", "from torch.nn import Linear as build"]
)
def test_what_is_no_function_of_channels_size_and_classes_is_named(own_network, source):
    name = own_network(source)
    assert refusal(name).startswith(f"Network {name!r} ")


@pytest.mark.parametrize(
    ("own", "rule"),
    [
        ({"build": "lambda **kwargs: {}"}, "returned dict, not a torch.nn.Module"),
        ({"forward": "return images.flatten(1)"}, "gives (2, 64) for 2 images; 10 classes need (2, 10)"),
        ({"forward": "return logits[:, :9]"}, "gives (2, 9) for 2 images; 10 classes need (2, 10)"),
        ({"forward": "return logits.sum(1)"}, "gives (2,) for 2 images; 10 classes need (2, 10)"),
        ({"forward": "return [logits]"}, "gives list for 2 images; 10 classes need (2, 10)"),
    ],
)
def test_a_network_whose_output_does_not_fit_is_named(own_network, own, rule):
    name = own_network(OWN.format(**{"forward": "return logits", "build": "Own"} | own))
    assert refusal(name) == f"Network {name!r} {rule}"


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ({"build": "lambda **kwargs: nn.Conv2d(7, 4, 3)"}, "Given groups=1, weight of size [4, 7, 3, 3], expected"),
        ({"build": "lambda **kwargs: nn.BatchNorm1d(1)"}, "expected 2D or 3D input (got 4D input)"),
        ({"forward": "raise NotImplementedError"}, ""),
    ],
)
def test_a_network_that_does_not_accept_the_images_is_named(own_network, own, reason):
    name = own_network(OWN.format(**{"forward": "return logits", "build": "Own"} | own))
    assert refusal(name).startswith(f"Network {name!r} does not accept images of shape (1, 8, 8): {reason}")


LAZY = """
from torch import nn

def build(channels, image_size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
"""


def test_a_network_of_lazy_layers_has_no_plan_and_can_be_loaded_again(own_network, tmp_path):
    name, arguments = own_network(LAZY), {"channels": 1, "image_size": 8, "num_classes": 10, "small_stem": False}
    assert build_on_meta(name, **arguments) is None
    model = build(name, **arguments)
    save_model(tmp_path / "file", ModelFile(model, name, arguments))
    assert torch.equal(load_model(tmp_path / "file").model[1].weight, model[1].weight)
