"""Both runtimes predict each image alike, whatever batch it comes in, from normalised or from raw pixels."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from lightweight.core.errors import InputError
from lightweight.data.dataset import Split
from lightweight.onnx.bounds import bound_memory
from lightweight.onnx.checksum import serialize
from lightweight.onnx.logits import onnx_logits, pixels, torch_logits
from lightweight.onnx.session import compute_logits, load_inference_session, make_inference_session
from tests.examples import METHODS, convnet_file, pruned_convnet

Change = Callable[[ModelProto], object]


@pytest.fixture
def changed_file(tiny_dataset, tmp_path) -> Callable[[Change], Path]:
    """changed_file(change): an ONNX file after the change."""

    def write(change: Change) -> Path:
        model = onnx.load_from_string(convnet_file("none", tiny_dataset))
        change(model)
        (tmp_path / "model.onnx").write_bytes(serialize(model))
        return tmp_path / "model.onnx"

    return write


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load_inference_session(path, threads=1)
    return str(error.value)


@pytest.mark.parametrize("batch_size", [1, 7, 60, 512])
def test_torch_predicts_every_image_in_order_in_evaluation_mode(tiny_dataset, batch_size):
    model = nn.Sequential(pruned_convnet(tiny_dataset), nn.Dropout(0.5)).train()
    actual = torch_logits(model, tiny_dataset, tiny_dataset.val, batch_size)
    with torch.no_grad():
        expected = model[0](tiny_dataset.normalize(tiny_dataset.val.images)).numpy()
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("method", ["none", "static"])
def test_the_file_predicts_every_image_in_order_for_any_batch_size(tiny_dataset, method, batch_size):
    session = make_inference_session(convnet_file(method, tiny_dataset), threads=1)
    expected = onnx_logits(session, tiny_dataset.val, 60)
    assert expected.shape == (60, 10)
    np.testing.assert_allclose(onnx_logits(session, tiny_dataset.val, batch_size), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_of_two_sessions_give_the_same_bits(tiny_dataset, method):
    content = convnet_file(method, tiny_dataset)
    runs = [onnx_logits(make_inference_session(content, threads=1), tiny_dataset.val, 16) for _ in range(2)]
    assert runs[0].tobytes() == runs[1].tobytes()


def test_images_of_another_shape_are_refused(tiny_dataset, colour_dataset):
    session = make_inference_session(convnet_file("none", tiny_dataset), threads=1)
    with pytest.raises(InputError) as error:
        onnx_logits(session, colour_dataset.val, 16)
    assert str(error.value) == ("The ONNX file takes images of shape (1, 28, 28), those of the data set have (3, 8, 8)")


def test_a_session_uses_the_threads_it_was_given_on_the_cpu(tiny_dataset):
    session = make_inference_session(convnet_file("none", tiny_dataset), threads=3)
    assert session.get_session_options().intra_op_num_threads == 3
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_pixels_are_the_stored_values_as_float32():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    raw = pixels(Split(images, torch.zeros(1)).images)
    assert raw.dtype == np.float32
    assert raw.shape == (1, 1, 16, 16)
    assert raw.flatten().tolist() == list(range(256))


@pytest.mark.parametrize("method", METHODS)
def test_a_file_that_ships_is_loaded(tiny_dataset, method, tmp_path):
    (tmp_path / "model.onnx").write_bytes(convnet_file(method, tiny_dataset))
    session = load_inference_session(tmp_path / "model.onnx", threads=2)
    assert session.get_session_options().intra_op_num_threads == 2
    expected = onnx_logits(make_inference_session(convnet_file(method, tiny_dataset), threads=1), tiny_dataset.val, 60)
    np.testing.assert_allclose(onnx_logits(session, tiny_dataset.val, 60), expected, rtol=1e-4, atol=1e-4)


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "no.onnx").startswith(f"{tmp_path / 'no.onnx'}: no such file")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a", bytes(1000)])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: damaged or not an ONNX file of this project: ")


@pytest.mark.parametrize("method", ["none", "static"])
def test_the_checksum_is_of_all_bytes_with_zeros_in_its_own_place(tiny_dataset, method):
    content = convnet_file(method, tiny_dataset)
    metadata = {item.key: item.value for item in onnx.load_from_string(content).metadata_props}
    blank = content.replace(metadata["sha256"].encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == metadata["sha256"]


def test_a_changed_weight_is_noticed_and_a_new_checksum_makes_the_file_valid(tiny_dataset, tmp_path):
    path, model = tmp_path / "model.onnx", onnx.load_from_string(convnet_file("none", tiny_dataset))
    weight = model.graph.initializer[0]
    weight.raw_data = weight.raw_data[:-1] + bytes([weight.raw_data[-1] ^ 1])
    path.write_bytes(model.SerializeToString())
    assert refusal(path).endswith("its content is not that of its checksum; delete it and run `dvc repro`")
    path.write_bytes(serialize(model))
    load_inference_session(path, threads=1)


def test_a_file_of_this_project_without_a_checksum_is_refused_and_one_of_others_is_told(tiny_dataset, tmp_path):
    path, model = tmp_path / "model.onnx", onnx.load_from_string(convnet_file("none", tiny_dataset))
    (checksum,) = (item for item in model.metadata_props if item.key == "sha256")
    model.metadata_props.remove(checksum)
    path.write_bytes(model.SerializeToString())
    no_checksum = "has no checksum: cut off, or made by an older version"
    assert no_checksum in refusal(path)
    model.producer_name = "another"
    path.write_bytes(model.SerializeToString())
    assert no_checksum in refusal(path), "its metadata are those of this project"
    metadata = list(model.metadata_props)
    del model.metadata_props[:]
    model.producer_name = "lightweight"
    path.write_bytes(model.SerializeToString())
    assert no_checksum in refusal(path), "its producer is this project"
    model.metadata_props.extend(item for item in metadata if item.key != "format")
    model.producer_name = "another"
    path.write_bytes(model.SerializeToString())
    with pytest.warns(UserWarning, match="carries no checksum"):
        load_inference_session(path, threads=1)


def boundaries(content: bytes) -> list[int]:
    """Where the top-level fields of a protocol buffer end, each entry of the metadata being one; the last is left out.

    The fields of a model are integers and what tells its length.
    """
    places, place = [], 0
    while place < len(content):
        tag, place = varint(content, place)
        number, place = varint(content, place)
        place += number if tag & 7 == 2 else 0
        places.append(place)
    assert places[-1] == len(content)
    return places[:-1]


def varint(content: bytes, place: int) -> tuple[int, int]:
    """The integer that begins at a place, and the place after it."""
    value = shift = 0
    while content[place] >= 128:
        value, shift, place = value | (content[place] & 127) << shift, shift + 7, place + 1
    return value | content[place] << shift, place + 1


@pytest.mark.parametrize("method", ["none", "static"])
def test_a_file_of_this_project_that_is_cut_off_between_two_fields_is_refused(tiny_dataset, method, tmp_path):
    path, content = tmp_path / "model.onnx", convnet_file(method, tiny_dataset)
    keys = {item.key for end in boundaries(content) for item in onnx.load_from_string(content[:end]).metadata_props}
    assert keys == {"classes", "format", "input", "versions"}
    for end in boundaries(content):
        path.write_bytes(content[:end])
        assert refusal(path).startswith(f"{path}: damaged or not an ONNX file of this project: ")
        if onnx.load_from_string(content[:end]).producer_name:
            assert "has no checksum: cut off, or made by an older version" in refusal(path)


def names_other_file(model: ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")


def names_other_file_beside_its_values(model: ModelProto) -> None:
    """Which it does not say to use."""
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def contradicts_itself(model: ModelProto) -> None:
    """About the size of a value within, which ONNX Runtime would find out itself."""
    wrong = helper.make_tensor_value_info(model.graph.node[0].output[0], TensorProto.FLOAT, ["N", 7, 7, 7])
    del model.graph.value_info[:]
    model.graph.value_info.append(wrong)


def sparse(external: bool) -> onnx.SparseTensorProto:
    """Of three values, which stand in the file or in another."""
    values = helper.make_tensor("values", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    if external:
        values.ClearField("float_data")
        values.data_location = TensorProto.EXTERNAL
        values.external_data.add(key="location", value="neighbour.bin")
    places = helper.make_tensor("places", TensorProto.INT64, [3], [0, 1, 2])
    return onnx.SparseTensorProto(values=values, indices=places, dims=[1, 10])


def has_sparse_constant(external: bool) -> Change:
    return lambda model: reach_the_logits(
        model, [helper.make_node("Constant", [], ["huge"], sparse_value=sparse(external))]
    )


def names_other_file_in_a_list(model: ModelProto) -> None:
    tensor = sparse(external=True).values
    model.graph.node[0].attribute.append(helper.make_attribute("own", [tensor]))


def has_loop(model: ModelProto) -> None:
    """Which runs for years."""
    go = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    again = helper.make_tensor_value_info("again", TensorProto.BOOL, [])
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    body = helper.make_graph([helper.make_node("Identity", ["go"], ["again"])], "body", [turn, go], [again])
    model.graph.initializer.append(helper.make_tensor("turns", TensorProto.INT64, [], [2**62]))
    model.graph.node.append(helper.make_node("Loop", ["turns", ""], [], body=body))


def has_function(model: ModelProto) -> None:
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "Own", ["x"], ["y"], relu, [helper.make_opsetid("", 20)]))


def set_format(model: ModelProto, version: str) -> None:
    (entry,) = (item for item in model.metadata_props if item.key == "format")
    entry.value = version


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (names_other_file, "names other files"),
        (names_other_file_beside_its_values, "names other files"),
        (contradicts_itself, "[ShapeInferenceError]"),
        (names_other_file_in_a_list, "names other files"),
        (has_sparse_constant(external=True), "names other files"),
        (has_sparse_constant(external=False), "has sparse tensors"),
        (lambda model: model.graph.sparse_initializer.append(sparse(external=True)), "names other files"),
        (lambda model: model.graph.sparse_initializer.append(sparse(external=False)), "has sparse tensors"),
        (has_loop, "has functions or graphs within its graph"),
        (has_function, "has functions or graphs within its graph"),
        (lambda model: model.graph.input.append(model.graph.input[0]), "must have one 'input' of 4 dimensions"),
        (lambda model: setattr(model.graph.input[0], "name", "image"), "must have one 'input' of 4 dimensions"),
        (lambda model: model.graph.output.append(model.graph.output[0]), "must have one 'logits' of 2 dimensions"),
        (lambda model: model.graph.output.pop(), "must have one 'logits' of 2 dimensions"),
        (
            lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 1),
            "must have one 'input' of 4 dimensions, the first without a size",
        ),
        (
            lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 2**40),
            "must have one 'input' of 4 dimensions",
        ),
        (lambda model: model.graph.node.pop(), "Graph output 'logits' is not an output of any node"),
        (lambda model: model.graph.initializer.pop(), "Nodes in a graph must be topologically sorted"),
    ],
)
def test_what_export_does_not_write_is_refused(changed_file, change, rule):
    path = changed_file(change)
    assert refusal(path).startswith(f"{path}: damaged or not an ONNX file of this project: {rule}")


@pytest.mark.parametrize(("version", "shown"), [("2", "2"), ('"x"', "'x'")])
def test_a_file_of_another_format_is_refused_by_name_and_version(changed_file, version, shown):
    path = changed_file(lambda model: set_format(model, version))
    assert refusal(path).startswith(f"{path}: format = {shown}: this version of the project reads 0 to 1")


def only_for_one_image(model: ModelProto) -> None:
    shape = next(item for item in model.graph.initializer if item.data_type == TensorProto.INT64)
    shape.CopyFrom(helper.make_tensor(shape.name, TensorProto.INT64, [2], [1, 1568]))


def test_a_file_that_cannot_run_any_batch_is_refused(changed_file):
    assert "while running Reshape node" in refusal(changed_file(only_for_one_image))


def huge(model: ModelProto) -> None:
    """10 GB, of a size that is known only when the file runs."""
    model.graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [4], [0, 1, 2, 3]))
    model.graph.initializer.append(helper.make_tensor("size", TensorProto.FLOAT, [1], [2.5e9]))
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]))
    chain = [
        helper.make_node("ReduceMax", ["input", "axes"], ["zero"], keepdims=0),
        helper.make_node("Add", ["zero", "size"], ["float size"]),
        helper.make_node("Cast", ["float size"], ["integer size"], to=TensorProto.INT64),
        helper.make_node("Expand", ["one", "integer size"], ["huge"]),
    ]
    model.graph.node.extend(chain)


def test_a_file_that_takes_gigabytes_is_refused_before_it_takes_them(changed_file):
    line = refusal(changed_file(huge))
    assert "while running Expand node" in line
    assert "Available memory" in line


def reach_the_logits(model: ModelProto, nodes: list[NodeProto]) -> None:
    """Add to the logits the sum of what the nodes make of `pixel`, the highest of the image, and call `huge`."""
    for node in model.graph.node:
        node.output[:] = ["harmless" if name == "logits" else name for name in node.output]
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]))
    model.graph.node.append(helper.make_node("ReduceMax", ["input"], ["pixel"], keepdims=0))
    model.graph.node.extend(nodes)
    model.graph.node.append(helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["harmless", "sum"], ["logits"]))


def strings(model: ModelProto) -> None:
    """A million strings of 1,000 bytes, for which the allocator of activations is not asked."""
    model.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [1], [1_000_000]))
    model.graph.initializer.append(helper.make_tensor("string", TensorProto.STRING, [1], [b"x" * 1000]))
    nodes = [
        helper.make_node("Expand", ["string", "size"], ["strings"]),
        helper.make_node("Equal", ["strings", "string"], ["equal"]),
        helper.make_node("Cast", ["equal"], ["huge"], to=TensorProto.FLOAT),
    ]
    reach_the_logits(model, nodes)


def huge_for_a_second_image(model: ModelProto) -> None:
    """1 GB for each image but the first, of a kind that the allocator of activations would be asked for."""
    model.graph.initializer.append(helper.make_tensor("first", TensorProto.INT64, [1], [1]))
    model.graph.initializer.append(helper.make_tensor("gigabyte", TensorProto.INT64, [1], [2**28]))
    nodes = [
        helper.make_node("Shape", ["input"], ["images"], start=0, end=1),
        helper.make_node("Sub", ["images", "first"], ["more images"]),
        helper.make_node("Mul", ["more images", "gigabyte"], ["size"]),
        helper.make_node("Expand", ["one", "size"], ["huge"]),
    ]
    reach_the_logits(model, nodes)


@pytest.mark.parametrize("change", [strings, huge_for_a_second_image])
def test_memory_is_bounded_that_no_allocator_knows_and_that_of_the_session_that_is_returned(
    changed_file, monkeypatch, change
):
    path = changed_file(change)
    monkeypatch.setattr("lightweight.onnx.session.MAX_BYTES_PER_IMAGE", 2**28)
    assert re.search("while running Expand node|bad_alloc", refusal(path))


def large(model: ModelProto) -> None:
    """With 128 MiB of weights."""
    weights = numpy_helper.from_array(np.zeros(2**25, np.float32), "weights")
    model.graph.initializer.append(weights)
    reach_the_logits(model, [helper.make_node("Mul", ["weights", "pixel"], ["huge"])])


def test_a_file_with_many_weights_gets_memory_for_them(changed_file, monkeypatch):
    path = changed_file(large)
    monkeypatch.setattr("lightweight.onnx.session.MAX_BYTES_PER_IMAGE", 2**24)
    load_inference_session(path, threads=1)


def test_a_block_gets_the_memory_of_its_bound_and_what_follows_gets_more():
    with bound_memory(2**28):
        assert len(bytearray(2**27)) == 2**27
        with pytest.raises(MemoryError):
            bytearray(2**29)
    assert len(bytearray(2**29)) == 2**29


def test_the_folding_of_constants_is_bounded(tiny_dataset, changed_file):
    """Which a session gives up without an error."""
    content = changed_file(folds).read_bytes()
    with bound_memory(2**28):
        session = make_inference_session(content, threads=1)
        with pytest.raises(ValueError, match="allocate"):
            compute_logits(session, np.zeros((1, 1, 28, 28), np.float32))


def folds(model: ModelProto) -> None:
    """Ten constants of 100 MB, each made of the one before."""
    model.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [1], [25_000_000]))
    nodes = [helper.make_node("Expand", ["one", "size"], ["constant 0"])]
    for number in range(10):
        nodes += [
            helper.make_node("Mul", [f"constant {number}", "pixel"], [f"product {number}"]),
            helper.make_node("ReduceMax", [f"product {number}"], [f"maximum {number}"], keepdims=0),
            helper.make_node("Add", [f"constant {number}", "one"], [f"constant {number + 1}"]),
        ]
    reach_the_logits(model, [*nodes, helper.make_node("Sum", [f"maximum {n}" for n in range(10)], ["huge"])])


def huge_for(factor: float) -> Change:
    """So many bytes for each step of brightness of the brightest pixel."""

    def change(model: ModelProto) -> None:
        model.graph.initializer.append(helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor / 4]))
        nodes = [
            helper.make_node("Mul", ["pixel", "factor"], ["float size"]),
            helper.make_node("Cast", ["float size"], ["size"], to=TensorProto.INT64),
            helper.make_node("Expand", ["one", "size"], ["huge"]),
        ]
        reach_the_logits(model, nodes)

    return change


def test_a_file_that_fails_at_bright_images_is_one_line(changed_file, tiny_dataset):
    session = load_inference_session(changed_file(huge_for(2.0**40)), threads=1)
    with pytest.raises(InputError) as error:
        onnx_logits(session, tiny_dataset.val, 16)
    assert str(error.value).startswith("The ONNX file cannot predict images of the data set: [ONNXRuntimeError]")


def test_logits_of_another_shape_for_some_images_are_refused(changed_file):
    session = load_inference_session(changed_file(wider), threads=1)
    compute_logits(session, np.zeros((3, 1, 28, 28), np.float32))
    with pytest.raises(ValueError, match=r"gives float32 \(3, 20\) for 3 images"):
        compute_logits(session, np.full((3, 1, 28, 28), 255, np.float32))


def wider(model: ModelProto) -> None:
    """Twice the logits for a white image."""
    for node in model.graph.node:
        node.output[:] = ["harmless" if name == "logits" else name for name in node.output]
    model.graph.initializer.append(helper.make_tensor("factor", TensorProto.FLOAT, [1], [1 / 255]))
    model.graph.initializer.append(helper.make_tensor("ones", TensorProto.INT64, [2], [1, 1]))
    model.graph.initializer.append(helper.make_tensor("columns", TensorProto.INT64, [2], [0, 1]))
    chain = [
        helper.make_node("ReduceMax", ["input"], ["pixel"], keepdims=0),
        helper.make_node("Mul", ["pixel", "factor"], ["float more"]),
        helper.make_node("Cast", ["float more"], ["more"], to=TensorProto.INT64),
        helper.make_node("Mul", ["more", "columns"], ["more columns"]),
        helper.make_node("Add", ["ones", "more columns"], ["times"]),
        helper.make_node("Tile", ["harmless", "times"], ["logits"]),
    ]
    model.graph.node.extend(chain)
