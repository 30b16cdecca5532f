"""Published networks by name, at any image size and channel count, with the parameters of their papers."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from lightweight.core.errors import InputError
from lightweight.networks import zoo
from lightweight.networks.factory import build, validate_name


def refusal(name: str, channels: int = 3, size: int = 32, small_stem: bool = False) -> str:
    with pytest.raises(InputError) as error:
        build(name, channels, size, 10, small_stem)
    assert "\n" not in str(error.value)
    return str(error.value)


# As torchvision documents them beside their weights.
@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 11_689_512), ("efficientnet_b0", 5_288_548)])
def test_a_torchvision_network_is_the_published_one(name, parameters):
    model = build(f"torchvision/{name}", 3, 64, 1000, small_stem=False)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    weights = zoo.torchvision("models").get_model_weights(name).DEFAULT
    assert weights.meta["num_params"] == parameters


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"])
@pytest.mark.parametrize(("channels", "size", "small"), [(1, 96, False), (3, 40, False), (5, 33, True)])
def test_a_torchvision_network_takes_any_size_channels_and_stem(name, channels, size, small):
    model = build(f"torchvision/{name}", channels, size, 7, small)
    logits = model(torch.rand(4, channels, size, size))
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_vision_transformer_is_made_for_the_image_size():
    assert build("torchvision/vit_b_32", 1, 64, 10, small_stem=False)(torch.rand(1, 1, 64, 64)).shape == (1, 10)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_outputs_give_one_in_training_mode(name):
    assert isinstance(build(f"torchvision/{name}", 3, 80, 10, small_stem=False)(torch.rand(2, 3, 80, 80)), torch.Tensor)


def test_the_normal_stem_is_kept_where_the_channels_fit():
    torch.manual_seed(0)
    expected = zoo.torchvision("models").resnet18(num_classes=10).state_dict()
    torch.manual_seed(0)
    found = build("torchvision/resnet18", 3, 64, 10, small_stem=False).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_small_stem_keeps_the_resolution_of_small_images():
    def first_stage(small: bool) -> torch.Size:
        model = build("torchvision/resnet18", 3, 32, 10, small)
        return model.layer1(model.maxpool(model.conv1(torch.rand(1, 3, 32, 32)))).shape

    assert first_stage(small=False) == (1, 64, 8, 8)
    assert first_stage(small=True) == (1, 64, 32, 32)
    conv = build("torchvision/resnet18", 3, 32, 10, small_stem=True).conv1
    assert (conv.kernel_size, conv.stride, conv.padding, conv.bias) == ((3, 3), (1, 1), (1, 1), None)


def test_a_stem_drops_only_a_max_pool_before_the_second_convolution():
    network = nn.Sequential(nn.Conv2d(3, 4, 7, 2), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2))
    zoo.fit_stem(network, channels=3, small=True)
    assert isinstance(network[3], nn.MaxPool2d)


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "convnext_tiny"])
def test_a_network_that_begins_with_patches_has_no_small_stem(name):
    message = "cannot be built: no small stem: the network does not begin with an overlapping convolution"
    assert refusal(f"torchvision/{name}", size=64, small_stem=True) == f"Network 'torchvision/{name}' {message}"


def test_an_unknown_torchvision_network_is_refused():
    assert refusal("torchvision/resnet19") == (
        "torchvision has no classifier 'resnet19'; did you mean torchvision/resnet18?"
    )
    assert refusal("torchvision/zzzzzz").endswith("'zzzzzz'; torchvision.models.list_models() lists them")
    with pytest.raises(InputError, match="has no classifier 'fasterrcnn_resnet50_fpn'"):
        validate_name("torchvision/fasterrcnn_resnet50_fpn")


def test_a_size_that_a_network_cannot_take_is_refused():
    line = refusal("torchvision/inception_v3", size=32)
    assert line.startswith("Network 'torchvision/inception_v3' does not accept images of shape (3, 32, 32): ")


def test_timm_is_asked_for_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert refusal("timm/resnet10t") == "The network 'timm/resnet10t' needs the package timm: pip install timm"


def test_timm_networks_get_channels_classes_and_a_size_where_they_take_one(monkeypatch):
    asked = []

    def create_model(name: str, **options: int) -> nn.Module:
        asked.append((name, options))
        if name == "conv" and "img_size" in options:
            raise TypeError("unexpected keyword argument 'img_size'")
        return nn.Sequential(
            nn.Conv2d(options["in_chans"], options["num_classes"], 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    timm = ModuleType("timm")
    timm.create_model, timm.is_model = create_model, lambda name: name in ("conv", "sized")
    timm.list_models = lambda: ["conv", "sized"]
    monkeypatch.setitem(sys.modules, "timm", timm)
    options = {"in_chans": 3, "num_classes": 10}
    for name in ("conv", "sized"):
        build(f"timm/{name}", 3, 32, 10, small_stem=False)
    assert asked == [("conv", options | {"img_size": 32}), ("conv", options), ("sized", options | {"img_size": 32})]
    assert refusal("timm/odd") == "timm has no network 'odd'; timm.list_models() lists them"
    assert refusal("timm/Size") == "timm has no network 'Size'; did you mean timm/sized?"


@pytest.mark.parametrize(("name", "size"), [("resnet10t", 40), ("vit_tiny_patch16_224", 32)])
def test_real_timm_networks_are_built(name, size):
    pytest.importorskip("timm")
    assert build(f"timm/{name}", 1, size, 10, small_stem=False)(torch.rand(2, 1, size, size)).shape == (2, 10)
