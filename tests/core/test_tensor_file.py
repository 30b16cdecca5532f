"""A file of tensors comes back bit for bit, and any other bit in it is noticed."""

import json

import pytest
import torch
from safetensors.torch import save

from lightweight.core.errors import InputError
from lightweight.core.tensor_file import METADATA_KEY, _digest, read_tensors, write_tensors

TENSORS = {
    "weight": torch.linspace(-1, 1, 35).view(5, 7),
    "half": torch.arange(4, dtype=torch.bfloat16),
    "number": torch.tensor(7),
    "empty": torch.zeros(0, 3),
    "mask": torch.tensor([True, False]),
}
ABOUT = {"name": "größer", "list": [1, 0.1, None], "nested": {"b": 2, "a": 1}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


def refusal(path) -> str:
    with pytest.raises(InputError) as error:
        read_tensors(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_tensors_and_text_come_back_as_they_were(path):
    write_tensors(path, TENSORS, ABOUT)
    tensors, about = read_tensors(path)
    assert json.dumps(about) == json.dumps(ABOUT)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


@pytest.mark.parametrize("version", [2, 99, -1, "1", None, True])
def test_a_file_of_a_newer_format_is_refused_by_name(path, monkeypatch, version):
    monkeypatch.setattr("lightweight.core.tensor_file.FORMAT_VERSION", version)
    write_tensors(path, TENSORS, ABOUT)
    assert refusal(path).startswith(f"{path}: format = {version!r}: this version of the project reads 0 to 1; ")


def test_a_file_from_before_the_format_had_a_version_is_read(path):
    text = json.dumps({"sha256": _digest(TENSORS, ABOUT)} | ABOUT)
    path.write_bytes(save(TENSORS, metadata={METADATA_KEY: text}))
    tensors, about = read_tensors(path)
    assert about == ABOUT
    assert tensors.keys() == TENSORS.keys()


def test_equal_content_gives_equal_bytes(path):
    write_tensors(path, TENSORS, ABOUT)
    first = path.read_bytes()
    write_tensors(path, dict(reversed(TENSORS.items())), ABOUT)
    assert path.read_bytes() == first


def test_every_flipped_bit_is_noticed_or_changes_nothing_that_is_read(path):
    write_tensors(path, TENSORS, ABOUT)
    whole, harmless = path.read_bytes(), []
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            tensors, about = read_tensors(path)
        except InputError:
            continue
        harmless.append(position)
        assert about == ABOUT
        assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert len(harmless) < 10, "such as the case of a hexadecimal digit in the header"


@pytest.mark.parametrize("name", TENSORS)
def test_a_damaged_file_says_so_and_what_to_do(path, name):
    write_tensors(path, TENSORS, ABOUT)
    with_other = {**TENSORS, name: torch.zeros(2)}
    _, about = read_tensors(path)
    write_tensors(path, with_other, about)
    other = path.read_bytes()
    header = json.loads(other[8 : 8 + int.from_bytes(other[:8], "little")])["__metadata__"]
    path.write_bytes(save(TENSORS, metadata=header))
    assert refusal(path) == (f"{path}: damaged: its content is not that of its checksum; delete it and run `dvc repro`")


def test_a_missing_file_is_named_with_what_makes_it(path):
    assert refusal(path) == f"{path}: no such file; `dvc repro` makes it"


@pytest.mark.parametrize("kept", [0, 4, 300, -1])
def test_a_truncated_file_is_damaged(path, kept):
    write_tensors(path, TENSORS, ABOUT)
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(path).startswith(f"{path}: damaged or not a safetensors file: ")


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (None, f"has no {METADATA_KEY!r} metadata: not written by this project"),
        ({"format": "pt"}, f"has no {METADATA_KEY!r} metadata: not written by this project"),
        ({METADATA_KEY: "{"}, "damaged or not a safetensors file: "),
        ({METADATA_KEY: "[" * 100_000}, "damaged or not a safetensors file: "),
        ({METADATA_KEY: "{}"}, "has no checksum: not written by this version of the project"),
        ({METADATA_KEY: "7"}, "has no checksum: not written by this version of the project"),
    ],
)
def test_a_foreign_safetensors_file_is_refused(path, metadata, reason):
    path.write_bytes(save({"weight": torch.zeros(2)}, metadata=metadata))
    assert refusal(path).startswith(f"{path}: {reason}")
