"""The model card parses as the Hub parses it, and says the numbers of the metrics."""

import numpy as np
import pytest
import yaml
from PIL import Image

from lightweight.onnx.export import export_onnx
from lightweight.reporting.card import ModelCard
from lightweight.reporting.table import comparison, markdown
from tests.examples import made_up_latency, made_up_metrics, new, noise

PARAMS = {
    "train.network": "resnet20", "prepare.dataset": "cifar10", "prepare.image_size": 32, "prepare.channels": 3,
    "quantize.method": "static",
}  # fmt: skip
HASHES = {"optimized.onnx": "ab" * 32}


def card(license: str | None = "MIT", **changes) -> ModelCard:
    scores, latency = made_up_metrics(), made_up_latency()
    return ModelCard(scores, latency, PARAMS | changes, ("cat", "größer: #x"), HASHES, license)


def split(text: str) -> tuple[dict, str]:
    """Parse a card as the Hub does: YAML between two lines of dashes, then Markdown."""
    start, header, body = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(header), body


def test_the_header_says_what_the_hub_links_and_searches_by():
    header, _ = split(card().render())
    assert header["base_model_relation"] == "quantized"
    assert (header["library_name"], header["pipeline_tag"]) == ("onnx", "image-classification")
    assert (header["license"], header["datasets"]) == ("mit", ["cifar10"])
    (index,) = header["model-index"]
    assert index["results"][0]["metrics"][0]["value"] == pytest.approx(made_up_metrics()["optimized"]["accuracy"])


def test_a_network_of_timm_is_the_base_model_under_its_name_on_the_hub():
    assert (
        split(card(**{"train.network": "timm/resnet18.a1_in1k"}).render())[0]["base_model"] == "timm/resnet18.a1_in1k"
    )
    assert split(card().render())[0]["base_model"] == "resnet20-cifar10"


def test_a_licence_that_is_not_stated_is_not_made_up():
    assert split(card(license=None).render())[0]["license"] == "unknown"


def test_the_body_has_the_table_the_classes_and_the_hashes():
    _, body = split(card().render())
    assert markdown(comparison(made_up_metrics(), made_up_latency())) in body
    assert "cat, größer: #x" in body
    assert f"| `optimized.onnx` | `{HASHES['optimized.onnx']}` |" in body


def test_the_usage_of_a_colour_model_compiles_and_that_of_a_grey_one_runs_as_printed(tmp_path, monkeypatch):
    colour, grey = (
        split(card(**{"prepare.image_size": 28, "prepare.channels": channels}).render())[1] for channels in (3, 1)
    )
    code = [body.partition("```python\n")[2].partition("```")[0] for body in (colour, grey)]
    compile(code[0], "card", "exec")
    assert 'convert("RGB")' in code[0]
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40), (9, 9, 9)).save("image.png")
    (tmp_path / "optimized.onnx").write_bytes(export_onnx(new("convnet"), noise()).SerializeToString())
    names: dict = {}
    exec(code[1], names)
    assert names["logits"].shape == (1, 10)
    assert np.isfinite(names["logits"]).all()
