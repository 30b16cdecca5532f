"""Pretrained weights fit exactly or are refused by name, and nothing in their file is executed."""

import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lightweight.core.errors import MAX_MESSAGE_CHARACTERS, InputError
from lightweight.core.torchvision_compat import torchvision
from lightweight.networks.factory import build
from lightweight.training.pretrained import load_weights
from tests.examples import BNNET, different, new, state

RESNET18 = "torchvision/resnet18"


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """Make weights for a network with values that no initialisation gives."""
    return {name: (tensor + 1).contiguous() for name, tensor in new(BNNET, seed=7).state_dict().items()}


def load(model: nn.Module, source: str, root: Path, network: str = BNNET, new_classifier: bool = True) -> list[str]:
    return load_weights(model, network, source, root, new_classifier=new_classifier)


def refusal(model: nn.Module, source: str, root: Path, network: str = BNNET, **options: bool) -> str:
    before = state(model)
    with pytest.raises(InputError) as error:
        load(model, source, root, network, **options)
    assert not different(before, state(model)), "a refused file changes nothing"
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_safetensors_file_is_loaded_bitwise(weights, tmp_path):
    save_file(weights, tmp_path / "w.safetensors")
    model = new(BNNET)
    assert load(model, "w.safetensors", tmp_path) == []
    assert not different(weights, state(model))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_are_loaded_as_training_scripts_save_them(weights, tmp_path, wrapper, prefix):
    content = {f"{prefix}{name}": tensor for name, tensor in weights.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "w.pth")
    model = new(BNNET)
    load(model, "w.pth", tmp_path)
    assert not different(weights, state(model))


def test_a_file_needs_no_suffix(weights, tmp_path):
    torch.save(weights, tmp_path / "weights")
    model = new(BNNET)
    load(model, "weights", tmp_path)
    assert not different(weights, state(model))


def test_half_precision_weights_become_float32(weights, tmp_path):
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_file(halved, tmp_path / "w.safetensors")
    model = new(BNNET)
    load(model, "w.safetensors", tmp_path)
    assert model[0].weight.dtype == torch.float32
    torch.testing.assert_close(state(model)["0.weight"], weights["0.weight"], rtol=1e-3, atol=1e-3)


def test_files_from_before_batch_counters_are_loaded(weights, tmp_path):
    old = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    save_file(old, tmp_path / "w.safetensors")
    model = new(BNNET)
    load(model, "w.safetensors", tmp_path)
    assert torch.equal(model[1].running_mean, weights["1.running_mean"])
    assert model[1].num_batches_tracked == 0


def test_the_classifier_of_another_number_of_classes_keeps_its_own_weights(weights, tmp_path):
    weights |= {"12.weight": torch.ones(1000, 32), "12.bias": torch.ones(1000)}
    save_file(weights, tmp_path / "w.safetensors")
    model = new(BNNET)
    before = state(model)
    assert load(model, "w.safetensors", tmp_path) == ["12.weight", "12.bias"]
    assert not {"12.weight", "12.bias"} & different(before, state(model))
    assert torch.equal(model[9].weight, weights["9.weight"])


def test_without_training_the_classifier_must_fit_too(weights, tmp_path):
    save_file(weights | {"12.bias": torch.ones(1000)}, tmp_path / "w.safetensors")
    line = refusal(new(BNNET), "w.safetensors", tmp_path, new_classifier=False)
    assert line.endswith("of another shape: 12.bias (1000,), must be (10,)")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"4.weight": None}, "missing: 4.weight"),
        ({"extra": torch.ones(1)}, "unexpected: extra"),
        ({"0.weight": torch.ones(8, 3, 3, 3)}, "of another shape: 0.weight (8, 3, 3, 3), must be (8, 1, 3, 3)"),
        ({"12.weight": torch.ones(10, 33)}, "of another shape: 12.weight (10, 33), must be (10, 32)"),
        ({"12.bias": None, "odd": torch.ones(1)}, "missing: 12.bias; unexpected: odd"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(weights, tmp_path, change, fault):
    content = {name: tensor for name, tensor in (weights | change).items() if tensor is not None}
    save_file(content, tmp_path / "w.safetensors")
    line = refusal(new(BNNET), "w.safetensors", tmp_path)
    assert line == f"params.yaml: train.weights = 'w.safetensors': does not fit the network {BNNET!r}; {fault}"


def test_a_long_list_of_faults_is_cut(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    line = refusal(new(BNNET), "w.safetensors", tmp_path)
    assert "missing: 0.weight, 1.weight, 1.bias, 1.running_mean, 1.running_var and 13 more; unexpected: a" in line


def test_a_pickle_that_would_execute_something_is_not_loaded(tmp_path):
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "w.pth").write_bytes(pickle.dumps({"0.weight": Attack()}))
    torch.save({"0.weight": Attack()}, tmp_path / "zip.pth")
    for name in ("w.pth", "zip.pth"):
        assert refusal(new(BNNET), name, tmp_path).startswith(f"{tmp_path / name}: not loaded as weights: ")
    assert not (tmp_path / "executed").exists()


def rezip(path: Path, packing: int, **changes: bytes) -> None:
    """Write the archive again, with other entries and packed otherwise."""
    with zipfile.ZipFile(path) as archive:
        entries = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in entries.items():
            archive.writestr(name, changes.get(name.rpartition("/")[2].replace(".", "_"), content))


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packed_archive_is_refused_before_it_is_unpacked(weights, tmp_path, packing, monkeypatch):
    torch.save(weights, tmp_path / "w.pth")
    rezip(tmp_path / "w.pth", packing)
    monkeypatch.setattr(torch, "load", None)
    line = refusal(new(BNNET), "w.pth", tmp_path)
    assert (
        line
        == f"{tmp_path / 'w.pth'}: not loaded as weights: its entries are packed, repeated, or larger than the file"
    )


def test_an_archive_whose_entries_claim_more_than_the_file_holds_is_refused(weights, tmp_path):
    torch.save(weights, tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # the last one in the directory
    struct.pack_into("<II", content, entry + 20, 2**31, 2**31)
    (tmp_path / "w.pth").write_bytes(content)
    assert refusal(new(BNNET), "w.pth", tmp_path).endswith("its entries are packed, repeated, or larger than the file")


@pytest.mark.filterwarnings("ignore")  # torch warns of its own prototypes
@pytest.mark.parametrize(
    "make",
    [
        lambda weight: weight.to_sparse(),
        lambda weight: weight.to(torch.complex64),
        lambda weight: weight.to("meta"),
        lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        lambda weight: torch.nested.nested_tensor([weight[0], weight[1]]),
        lambda weight: weight.to(torch.uint8).view(torch.float4_e2m1fn_x2),
    ],
    ids=["sparse", "complex", "meta", "quantized", "nested", "float4"],
)
def test_tensors_that_are_no_arrays_of_numbers_are_refused_by_name(weights, tmp_path, make):
    torch.save(weights | {"0.weight": make(weights["0.weight"])}, tmp_path / "w.pth")
    line = refusal(new(BNNET), "w.pth", tmp_path)
    assert line.startswith(f"{tmp_path / 'w.pth'}: ")
    assert line.endswith("must hold arrays of real numbers, these are none: 0.weight")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_names_of_any_kind_and_length_are_one_line(weights, tmp_path, name):
    content = weights | {"a\nb\x1b": torch.ones(1), "x" * 5000: torch.ones(1)}
    if name == "w.pth":
        torch.save(content, tmp_path / name)
    else:
        save_file(content, tmp_path / name)
    line = refusal(new(BNNET), name, tmp_path)
    assert line.isprintable()
    assert len(line) <= MAX_MESSAGE_CHARACTERS


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 broken zip", b".", b"R.", b"\x80\x02."])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert refusal(new(BNNET), name, tmp_path).startswith(f"{tmp_path / name}: not loaded as weights: ")


def test_the_error_for_a_whole_pickled_model_advises_a_state_dict(tmp_path):
    torch.save(new(BNNET), tmp_path / "w.pth")
    line = refusal(new(BNNET), "w.pth", tmp_path)
    assert line.endswith("w.pth: not loaded as weights: damaged, or more than tensors: save a state_dict()")


@pytest.mark.parametrize("content", [[torch.ones(1)], {0: torch.ones(1)}, {"lr": 0.1}, torch.ones(1)])
def test_a_file_that_is_no_state_dict_is_named(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    assert (
        refusal(new(BNNET), "w.pth", tmp_path)
        == f"{tmp_path / 'w.pth'}: holds no state dict: it must map names to tensors"
    )


def test_a_missing_file_is_named(tmp_path):
    line = refusal(new(BNNET), "no.pth", tmp_path)
    assert line == "params.yaml: train.weights = 'no.pth': no such file"


def test_published_weights_are_loaded_from_the_folder_of_downloads(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision("models").resnet18()
    path = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(published.state_dict(), path)
    model = build(RESNET18, 3, 32, 10, small_stem=False)
    assert load(model, "IMAGENET1K_V1", tmp_path, RESNET18) == ["fc.weight", "fc.bias"]
    assert torch.equal(model.layer4[1].conv2.weight, published.layer4[1].conv2.weight)


def test_the_error_for_a_failed_download_names_the_url_and_the_place_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    line = refusal(build(RESNET18, 3, 32, 10, False), "IMAGENET1K_V1", tmp_path, RESNET18)
    assert line.startswith("params.yaml: train.weights = 'IMAGENET1K_V1': not found and not downloaded")
    assert line.endswith(f"resnet18-f37072fd.pth at {tmp_path}/hub/checkpoints/resnet18-f37072fd.pth")


def test_unknown_names_of_weights_are_refused_with_the_known_ones(tmp_path):
    line = refusal(build(RESNET18, 3, 32, 10, False), "IMAGENET", tmp_path, RESNET18)
    assert "unknown weights of torchvision/resnet18; known are IMAGENET1K_V1" in line
    line = refusal(new(BNNET), "IMAGENET1K_V1", tmp_path)
    assert "is no file, and only torchvision/ networks have named weights" in line


def test_a_stem_that_does_not_fit_published_weights_is_refused(tmp_path):
    torch.save(torchvision("models").resnet18().state_dict(), tmp_path / "w.pth")
    line = refusal(build(RESNET18, 3, 32, 10, True), "w.pth", tmp_path, RESNET18)
    assert "of another shape: conv1.weight (64, 3, 7, 7), must be (64, 3, 3, 3)" in line
