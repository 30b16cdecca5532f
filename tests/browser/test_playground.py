"""Both models answer in a browser as they do in ONNX Runtime: to a drawing, to a dropped file, to the camera."""

import io
import json
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from lightweight.core.errors import InputError
from tests.browser.chromium import Chromium
from tests.browser.conftest import MODULES, violations
from tests.contract import ROOT
from tests.examples import convnet_file, exported, made_up_metrics, pruned_convnet
from tools.playground import PAGE, SAMPLES, Playground, as_png, build

TOLERANCE = 1e-4  # of the largest logit: other kernels sum in another order


@pytest.fixture(scope="module")
def playground(tiny_dataset) -> Playground:
    original = exported(pruned_convnet(tiny_dataset), tiny_dataset).SerializeToString()
    files = {"original": original, "optimized": convnet_file("static", tiny_dataset)}
    return Playground(files, tiny_dataset, made_up_metrics(), "convnet", "digits")


@pytest.fixture(scope="module")
def page(playground, browser, serve, tmp_path_factory) -> Chromium:
    if not (MODULES / "onnxruntime-web").exists():
        pytest.skip("needs ONNX Runtime Web: npm ci --prefix playground")
    folder = tmp_path_factory.mktemp("playground")
    build(playground, ROOT / "playground", folder)
    browser.resize(1280, 900)
    browser.open(f"{serve(folder)}/index.html")
    browser.wait_for("document.body.dataset.answers >= 1")
    return browser


def answers(page: Chromium) -> dict[str, np.ndarray]:
    """The logits of both models, after the page has answered what it was asked last."""
    page.wait_for("!asked && !busy")
    return {
        name: np.array(json.loads(page.evaluate(f"$('{name}').dataset.logits"))) for name in ("original", "optimized")
    }


def assert_as_onnxruntime(page: Chromium, playground: Playground, pixels: np.ndarray) -> None:
    """Assert that the browser's logits are those of ONNX Runtime for pixels (C, H, W)."""
    for name, logits in answers(page).items():
        session = onnxruntime.InferenceSession(playground.files[name], providers=["CPUExecutionProvider"])
        (expected,) = session.run(None, {"input": pixels[None].astype(np.float32)})
        assert np.abs(logits - expected[0]).max() <= TOLERANCE * np.abs(expected).max(), name


def test_it_loads_from_a_plain_server_without_complaint(page):
    assert page.complaints() == []
    assert all(url.startswith("http://127.0.0.1") for url in page.requests())


def test_a_dropped_file_is_answered_as_by_onnxruntime(page, playground, tiny_dataset, tmp_path):
    for number in (3, 8):
        image = tiny_dataset.test.images[number]
        path = tmp_path / f"{number}.png"
        path.write_bytes(as_png(image))
        before = page.evaluate("Number(document.body.dataset.answers)")
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            page.send("Input.dispatchDragEvent", type=kind, x=500, y=500, data=data)
        page.wait_for(f"document.body.dataset.answers > {before}")
        assert_as_onnxruntime(page, playground, image.numpy())


def test_a_chosen_file_of_another_size_and_in_colour_is_brought_to_the_models_pixels(page, playground, tmp_path):
    path = tmp_path / "large.png"
    Image.new("RGB", (200, 100), (200, 100, 50)).save(path)
    root = page.send("DOM.getDocument")["root"]["nodeId"]
    node = page.send("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    before = page.evaluate("Number(document.body.dataset.answers)")
    page.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)
    page.wait_for(f"document.body.dataset.answers > {before}")
    grey = np.asarray(Image.new("RGB", (28, 28), (200, 100, 50)).convert("L"))
    assert_as_onnxruntime(page, playground, grey[None])


def test_a_drawing_by_the_mouse_changes_the_answer_and_is_what_the_pad_shows(page, playground):
    page.evaluate("$('clear').click()")
    empty = answers(page)
    x, y = page.evaluate("(() => { const b = pad.getBoundingClientRect(); return [b.x, b.y]; })()")
    page.mouse("mousePressed", x + 140, y + 40)
    for step in range(1, 21):
        page.mouse("mouseMoved", x + 140, y + 40 + 10 * step)
    page.mouse("mouseReleased", x + 140, y + 240)
    drawn = answers(page)
    assert any(np.abs(drawn[name] - empty[name]).max() > 0.1 for name in drawn)
    pixels = np.array(page.evaluate("Array.from(read(pad, 280, 280))")).reshape(1, 28, 28)
    stroke = pixels[0, 5:23, 13:15]
    assert stroke.min() > 200
    assert pixels[0, :, :10].max() == 0
    assert_as_onnxruntime(page, playground, pixels)
    page.evaluate("$('clear').click()")
    assert (answers(page)["original"] == empty["original"]).all()


def test_a_test_image_is_answered_by_a_click(page, playground, tiny_dataset):
    assert page.evaluate("document.querySelectorAll('#samples button').length") == SAMPLES
    page.wait_for("[...document.querySelectorAll('#samples img')].every(image => image.complete && image.naturalWidth)")
    page.evaluate("document.querySelectorAll('#samples button')[4].click()")
    assert_as_onnxruntime(page, playground, tiny_dataset.test.images[playground.samples()[4]].numpy())


def test_it_says_whether_they_agree(page):
    page.evaluate("window.done = report({original: {logits: [1, 0, 0], probabilities: [1, 0, 0], milliseconds: 1},"
                  " optimized: {logits: [0, 1, 0], probabilities: [0, 1, 0], milliseconds: 1}})")  # fmt: skip
    assert page.evaluate("$('verdict').textContent") == "They disagree: the original says 0, the optimized file 1."
    assert page.evaluate("$('verdict').classList.contains('differ')")
    page.evaluate("report({original: {logits: [1, 0, 0], probabilities: [1, 0, 0], milliseconds: 1},"
                  " optimized: {logits: [1, 0, 0], probabilities: [1, 0, 0], milliseconds: 1}})")  # fmt: skip
    assert page.evaluate("$('verdict').textContent") == "Both say 0."


def test_the_camera_is_answered_and_can_be_switched_off(page):
    before = page.evaluate("Number(document.body.dataset.answers)")
    page.evaluate("$('camera').click()")
    page.wait_for(f"document.body.dataset.answers > {before} + 2")
    assert page.evaluate("$('camera').getAttribute('aria-pressed')") == "true"
    assert page.evaluate("pixels.some(value => value > 0)")
    page.evaluate("$('camera').click()")
    assert page.evaluate("stream === null && $('camera').getAttribute('aria-pressed') === 'false'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(page, axe, scheme):
    page.emulate(scheme=scheme)
    assert violations(page, axe) == []
    page.emulate()


def test_without_the_runtime_the_build_says_what_is_missing(playground, tmp_path):
    for name in PAGE:
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"ort\.wasm\.min\.js"):
        build(playground, tmp_path, tmp_path / "build")


def test_samples_are_spread_over_the_classes(playground, tiny_dataset):
    labels = [int(tiny_dataset.test.labels[number]) for number in playground.samples()]
    assert set(labels[:10]) == set(range(10))
    assert all(
        label["label"] == str(number) for label, number in zip(playground.describe()["samples"], labels, strict=True)
    )


def test_a_sample_keeps_every_pixel(tiny_dataset):
    image = tiny_dataset.test.images[0]
    assert (np.array(Image.open(io.BytesIO(as_png(image)))) == image[0].numpy()).all()


def test_the_sources_load_nothing_from_elsewhere():
    for name in PAGE:
        text = (Path(ROOT) / "playground" / name).read_text()
        assert "://" not in text, name
