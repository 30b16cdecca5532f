"""Images are classified by the file alone: without PyTorch, and by nothing that is not said of them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from lightweight.data.dataset import Dataset
from lightweight.data.resizing import FIT, Resizing
from lightweight.onnx.checksum import serialize
from lightweight.onnx.logits import onnx_logits
from lightweight.onnx.session import make_inference_session
from lightweight.preparation.images import read_image
from tests.contract import ROOT
from tests.examples import convnet_file
from tests.onnx.test_session import has_loop, huge, huge_for, reach_the_logits, wider

NUMBER = 6
(SNIPPET,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/deployment.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_dataset) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "model.onnx").write_bytes(convnet_file("static", tiny_dataset))
    for number, image in enumerate(tiny_dataset.test.images[:NUMBER].numpy()):
        Image.fromarray(image[0]).save(folder / f"{number}.png")
    return folder


def predict(folder: Path, *arguments: str, code: int = 0, **changed: str) -> tuple[list[str], list[str]]:
    return run(folder, ["-m", "lightweight.predict", *arguments], code, **changed)


def run(folder: Path, arguments: list[str], code: int, **changed: str) -> tuple[list[str], list[str]]:
    command = [sys.executable, *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"} | changed
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def expected(folder: Path, dataset: Dataset) -> list[str]:
    session = make_inference_session((folder / "model.onnx").read_bytes(), threads=1)
    logits = onnx_logits(session, dataset.test.take(np.arange(NUMBER)), 64).astype(float)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    names = [dataset.classes[label] for label in logits.argmax(1)]
    return [
        f"{name}  {share:.2%}" for name, share in zip(names, (odds / odds.sum(1, keepdims=True)).max(1), strict=True)
    ]


def test_classes_and_probabilities_are_those_of_the_evaluated_logits(folder, tiny_dataset):
    said, _ = predict(folder, "model.onnx", *(f"{number}.png" for number in range(NUMBER)))
    assert said == [f"{number}.png  {line}" for number, line in enumerate(expected(folder, tiny_dataset))]
    assert len({line.split()[1] for line in said}) > 2


def test_names_that_the_terminal_cannot_show_are_escaped_and_the_others_are_classified(folder, tiny_dataset):
    (folder / "grö\udcff.png").write_bytes((folder / "0.png").read_bytes())
    said, _ = predict(folder, "model.onnx", "grö\udcff.png", "1.png", PYTHONIOENCODING="ascii")
    first, second = expected(folder, tiny_dataset)[:2]
    assert said == [f"gr\\xf6\\udcff.png  {first}", f"1.png  {second}"]


def test_the_lines_of_the_docs_say_the_same(folder, tiny_dataset):
    (folder / "models").mkdir()
    (folder / "models/optimized.onnx").write_bytes((folder / "model.onnx").read_bytes())
    for number, line in enumerate(expected(folder, tiny_dataset)):
        (folder / "photo.jpg").write_bytes((folder / f"{number}.png").read_bytes())
        done = subprocess.run([sys.executable, "-c", SNIPPET], cwd=folder, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == line.split()[0]


def smooth(width: int, height: int, channels: int) -> np.ndarray:
    """Waves and a little noise, so that a JPEG does not hide a difference."""
    down, right = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    waves = 128 + 100 * np.sin(down / 9 + np.arange(channels)) * np.cos(right / 7)
    return (waves + np.random.default_rng(0).normal(0, 9, waves.shape)).clip(0, 255).astype(np.uint8).squeeze()


def turned(orientation: int) -> dict[str, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


COLOUR, ALPHA = smooth(90, 61, 3), smooth(90, 61, 4)
ODD = {
    **{f"turned {number}": (Image.fromarray(COLOUR), "JPEG", turned(number)) for number in range(1, 9)},
    "turned and transparent": (Image.fromarray(ALPHA), "PNG", turned(6)),
    "large": (Image.fromarray(smooth(700, 451, 3)), "JPEG", {}),
    "large, turned, grey, progressive": (
        Image.fromarray(smooth(451, 700, 1)),
        "JPEG",
        turned(8) | {"progressive": True},
    ),
    "of two pictures": (Image.fromarray(smooth(300, 200, 3)), "MPO", {}),
    "CMYK": (Image.fromarray(COLOUR).convert("CMYK"), "JPEG", {}),
    "transparent": (Image.fromarray(ALPHA), "PNG", {}),
    "transparent, WebP": (Image.fromarray(ALPHA), "WEBP", {"lossless": True}),
    "transparent grey": (Image.fromarray(ALPHA).convert("LA"), "PNG", {}),
    "opaque with alpha": (Image.fromarray(COLOUR).convert("RGBA"), "PNG", {}),
    "transparent colour": (Image.fromarray(COLOUR // 64 * 64), "PNG", {"transparency": (64, 64, 64)}),
    "transparent grey level": (Image.fromarray(COLOUR[..., 0] // 64 * 64), "PNG", {"transparency": 64}),
    "palette": (Image.fromarray(COLOUR).quantize(9), "PNG", {}),
    "palette, one transparent": (Image.fromarray(COLOUR).quantize(9), "GIF", {"transparency": 3}),
    "palette, each half transparent": (Image.fromarray(COLOUR).quantize(9), "PNG", {"transparency": bytes(range(9))}),
    "grey": (Image.fromarray(COLOUR[..., 0]), "PNG", {}),
    "black and white": (Image.fromarray(COLOUR).convert("1"), "PNG", {}),
    "16 bits": (Image.fromarray(smooth(90, 61, 1).astype(np.uint16) * 251), "PNG", {}),
    "wide": (Image.fromarray(smooth(301, 7, 3)), "PNG", {}),
    "tall": (Image.fromarray(smooth(6, 222, 3)), "BMP", {}),
    "tiny": (Image.fromarray(COLOUR[:1, :1]), "TIFF", {}),
    "of the size": (Image.fromarray(COLOUR[:24, :24]), "PNG", {}),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resizing", [FIT, Resizing(29, "bicubic")], ids=["fit", "shorter side"])
@pytest.mark.parametrize("name", ODD)
def test_the_lines_of_the_docs_take_the_pixels_of_prepare(name, resizing, channels, tmp_path, monkeypatch, capsys):
    image, kind, options = ODD[name]
    (tmp_path / "models").mkdir()
    image.save(tmp_path / "photo.jpg", kind, **options)
    expected = read_image(tmp_path / "photo.jpg", 24, channels, resizing)[0]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("GlobalAveragePool", ["input"], ["means"]),
            onnx.helper.make_node("Flatten", ["means"], ["logits"]),
        ],
        "means",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", channels, 24, 24])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", channels])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    metadata = {"classes": ["red", "green", "blue"][:channels], "input": {"values": "0 to 255"} | resizing.metadata()}
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.save(model, tmp_path / "models/optimized.onnx")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with Image.open("photo.jpg") as opened:  # a short script leaves that to its end
        monkeypatch.setattr(Image, "open", lambda path: opened)
        exec(SNIPPET, names)
    assert np.array_equal(names["pixels"], expected)
    assert capsys.readouterr().out.strip() == ["red", "green", "blue"][expected.mean((1, 2)).argmax()]


def test_it_imports_no_framework():
    code = "import sys, lightweight.predict; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tops = {name.partition(".")[0] for name in loaded.split()}
    assert {"onnxruntime", "onnx", "numpy", "PIL", "lightweight"} <= tops
    assert not tops & {"torch", "safetensors", "pydantic", "yaml", "scipy", "sklearn", "torchvision"}


@pytest.mark.parametrize(
    ("name", "make", "rule"),
    [
        ("wide.png", lambda: Image.new("L", (40, 30)), "must be resized to 28x28 for this model: --fit does it"),
        (
            "photo.png",
            lambda: Image.new("RGB", (28, 28)),
            "must be converted from RGB to L for this model: --fit does it",
        ),
        (
            "both.png",
            lambda: Image.new("RGBA", (9, 9)),
            "must be composited on white and converted from RGBA to L and resized to 28x28 for this model: --fit does "
            "it",
        ),
    ],
)
def test_an_image_of_another_size_or_mode_is_refused_and_fitted_when_asked(folder, name, make, rule):
    make().save(folder / name)
    said, complaints = predict(folder, "model.onnx", name, "0.png", code=1)
    assert complaints == [f"error: {name}: {rule}"]
    assert said == predict(folder, "model.onnx", "0.png")[0], "the others are classified"
    (line,), _ = predict(folder, "model.onnx", "--fit", name)
    assert re.fullmatch(rf"{name}  \d  \d+\.\d\d%", line)


def test_with_fit_every_image_is_treated_as_those_of_the_data_set(folder, tiny_dataset):
    """Also one that has the model's size: a photograph of this size was resized and cut, too."""
    resizing = Resizing(40, "bicubic")
    resized = foreign(folder, "resized.onnx", set_metadata("input", json.dumps(resizing.metadata())))
    wide = Image.fromarray(smooth(61, 47, 1))
    for image in (Image.open(folder / "0.png"), wide):
        image.save(folder / "photo.png")
        Image.fromarray(read_image(folder / "photo.png", 28, 1, resizing)[0][0]).save(folder / "same.png")
        expected = predict(folder, "model.onnx", "same.png")[0][0].replace("same", "photo")
        assert predict(folder, resized, "photo.png", "--fit")[0] == [expected]
        assert predict(folder, "model.onnx", "photo.png", "--fit")[0] != [expected]
    assert predict(folder, resized, "0.png")[0] == predict(folder, "model.onnx", "0.png")[0]


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [("none.png", None, "is no regular file"), ("text.png", b"no picture", "cannot identify image file")],
)
def test_what_is_no_image_is_one_line(folder, name, content, rule):
    if content:
        (folder / name).write_bytes(content)
    _, complaints = predict(folder, "model.onnx", name, code=1)
    assert complaints == [f"error: {name}: {rule}"]


def foreign(folder: Path, name: str, change: Callable[[onnx.ModelProto], object]) -> str:
    """Write the file after a change, with a checksum that is right, and return its name."""
    model = onnx.load(folder / "model.onnx")
    change(model)
    (folder / name).write_bytes(serialize(model))
    return name


def set_metadata(key: str, value: str) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        (entry,) = (item for item in model.metadata_props if item.key == key)
        entry.value = value

    return change


def fix_the_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda model: model.ClearField("metadata_props"), "names 0 classes in its metadata, has 10 logits"),
        (set_metadata("classes", '["a"]'), "names 1 classes in its metadata, has 10 logits"),
        (set_metadata("classes", "1"), "names 0 classes in its metadata, has 10 logits"),
        (
            set_metadata("classes", json.dumps(["a"] * 9 + ["cat  1.00%\nother.png  dog"])),
            r"the name of a class must be printable text: 'cat  1.00%\nother.png  dog'",
        ),
        (
            set_metadata("classes", json.dumps(["\x1b[2J"] + ["a"] * 9)),
            r"the name of a class must be printable text: '\x1b[2J'",
        ),
        (
            set_metadata("input", '{"resize": {"shorter_side": 1000000000, "interpolation": "bicubic"}}'),
            "its metadata does not describe its input: resize.shorter_side must be an integer from 28 to 2048",
        ),
        (set_metadata("input", "{"), "its metadata does not describe its input: Expecting property name"),
        (set_metadata("format", "2"), "format = 2: this version of the project reads 0 to 1"),
        (fix_the_batch, "damaged or not an ONNX file of this project: must have one 'input' of 4 dimensions"),
        (has_loop, "damaged or not an ONNX file of this project: has functions or graphs within its graph"),
        (huge, "damaged or not an ONNX file of this project: [ONNXRuntimeError]"),
    ],
)
def test_a_file_of_another_kind_is_one_line(folder, change, rule):
    name = foreign(folder, "foreign.onnx", change)
    _, complaints = predict(folder, name, "0.png", code=1)
    assert len(complaints) == 1
    assert complaints[0].startswith(f"error: {name}: {rule}")


def slow(model: onnx.ModelProto) -> None:
    """Two hundred products of matrices of 4096 rows and columns: minutes."""
    model.graph.initializer.append(helper.make_tensor("rows", TensorProto.INT64, [2], [4096, 4096]))
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]))
    model.graph.node.append(helper.make_node("Expand", ["one", "rows"], ["product 0"]))
    for number in range(200):
        inputs = [f"product {number}", "product 0"]
        model.graph.node.append(helper.make_node("MatMul", inputs, [f"product {number + 1}"]))


def test_a_file_that_takes_too_long_is_one_line(folder):
    name = foreign(folder, "slow.onnx", slow)
    code = "import lightweight.predict as command; command.MAX_SECONDS = 1.0; command.main()"
    _, complaints = run(folder, ["-c", code, name, "0.png"], 1)
    assert complaints == [f"error: {name}: took more than 1 seconds for a black image"]


def slow_for_white(model: onnx.ModelProto) -> None:
    """The same products, of as many rows as 16 times the brightest pixel."""
    model.graph.initializer.append(helper.make_tensor("sixteen", TensorProto.FLOAT, [2], [16.0, 16.0]))
    nodes = [
        helper.make_node("Mul", ["pixel", "sixteen"], ["float rows"]),
        helper.make_node("Cast", ["float rows"], ["rows"], to=TensorProto.INT64),
        helper.make_node("Expand", ["one", "rows"], ["product 0"]),
        *(helper.make_node("MatMul", [f"product {n}", "product 0"], [f"product {n + 1}"]) for n in range(200)),
        helper.make_node("Identity", ["product 200"], ["huge"]),
    ]
    reach_the_logits(model, nodes)


def shades(folder: Path) -> tuple[str, str]:
    """The names of a black image and of a white one."""
    Image.new("L", (28, 28), 0).save(folder / "black.png")
    Image.new("L", (28, 28), 255).save(folder / "white.png")
    return "black.png", "white.png"


def test_a_file_that_takes_too_long_for_some_image_is_one_line(folder):
    name = foreign(folder, "slow.onnx", slow_for_white)
    code = "import lightweight.predict as command; command.MAX_SECONDS = 4.0; command.main()"
    said, complaints = run(folder, ["-c", code, name, *shades(folder)], 1)
    assert complaints == ["error: white.png: the model took more than 4 seconds for it"]
    assert [line.split()[0] for line in said] == ["black.png"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (huge_for(4_000_000.0), "[ONNXRuntimeError]"),  # bytes, of which a white image needs 1 GB
        (huge_for(2.0**50), "[ONNXRuntimeError]"),
        (wider, "gives float32 (1, 20) for 1 images"),
        (lambda model: reach_the_logits(model, INFINITE), "gives logits that are no finite numbers"),
    ],
)
def test_a_file_that_fails_at_some_image_is_one_line_and_the_others_are_classified(folder, change, rule):
    name = foreign(folder, "hostile.onnx", change)
    code = "import lightweight.onnx.session as s, lightweight.predict as p; s.MAX_BYTES_PER_IMAGE = 2**28; p.main()"
    black, white = shades(folder)
    said, (complaint,) = run(folder, ["-c", code, name, white, black], 1)
    assert complaint.startswith(f"error: white.png: the model cannot predict it: {rule}")
    assert [line.split()[0] for line in said] == ["black.png"]


INFINITE = [helper.make_node("Exp", ["pixel"], ["huge"])]


def test_a_flipped_bit_anywhere_is_noticed(folder):
    content = bytearray((folder / "model.onnx").read_bytes())
    for place in range(0, len(content), len(content) // 5):
        damaged = content.copy()
        damaged[place] ^= 1
        (folder / "damaged.onnx").write_bytes(damaged)
        _, (complaint,) = predict(folder, "damaged.onnx", "0.png", code=1)
        assert complaint.startswith("error: damaged.onnx: damaged or not an ONNX file of this project: ")


def test_a_file_of_others_that_has_no_checksum_is_used_and_told(folder, tiny_dataset):
    model = onnx.load(folder / "model.onnx")
    classes = next(item for item in model.metadata_props if item.key == "classes")
    del model.metadata_props[:]
    model.metadata_props.append(classes)
    model.producer_name = "another"
    onnx.save(model, folder / "others.onnx")
    said, complaints = predict(folder, "others.onnx", "0.png")
    assert said == [f"0.png  {expected(folder, tiny_dataset)[0]}"]
    assert complaints == ["warning: others.onnx carries no checksum: damage to it cannot be noticed"]


@pytest.mark.parametrize(
    ("name", "rule"), [("gone.onnx", "no such file"), ("0.png", "damaged or not an ONNX file of this project")]
)
def test_a_file_that_is_none_is_one_line(folder, name, rule):
    _, complaints = predict(folder, name, "0.png", code=1)
    assert len(complaints) == 1
    assert rule in complaints[0]
