"""The page is one file: table, verdict and pictures are inside, and no name in it can become markup."""

import base64
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from lightweight.core.files import write_csv
from lightweight.core.variants import VARIANTS
from lightweight.onnx.coverage import coverage_table, measure_coverage
from lightweight.onnx.layer import Layer
from lightweight.reporting.page import TITLES, write_page
from lightweight.reporting.summary import explain, headline
from lightweight.reporting.table import comparison
from tests.examples import made_up_latency, made_up_metrics

PICTURES = {name: f"picture of {name}".encode() for name in TITLES}


class Page(HTMLParser):
    """Every tag with its attributes, the cells of the table by row, and the text outside of it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.in_cell, self.text = False, ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self.in_cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif self.in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag) -> None:
        self.in_cell = False

    def handle_data(self, data) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data
        else:
            self.text += data


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "plots"
    folder.mkdir()
    for name, content in PICTURES.items():
        (folder / f"{name}.png").write_bytes(content)
    return folder


def written(pictures: Path, latency=None) -> Page:
    path = pictures / "report.html"
    write_page(path, made_up_metrics(), made_up_latency() if latency is None else latency, pictures)
    return Page(path)


def rows_of(table: pd.DataFrame) -> list[list[str]]:
    return [list(table.columns), *table.to_numpy().tolist()]


def test_the_page_holds_every_picture_and_points_to_nothing_outside_itself(pictures):
    page = written(pictures)
    prefix = "data:image/png;base64,"
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert all(source.startswith(prefix) for source in sources)
    assert [base64.b64decode(source.removeprefix(prefix)) for source in sources] == list(PICTURES.values())
    outside = [tag for tag, attributes in page.tags if tag != "img" and attributes.keys() & {"src", "href", "srcset"}]
    assert outside == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "script", "iframe"})
    text = (pictures / "report.html").read_text()
    for trace in ("http://", "https://", "url(", "@import", str(pictures)):
        assert trace not in text


def test_the_table_is_the_comparison_of_all_variants(pictures):
    page = written(pictures)
    assert page.rows == rows_of(comparison(made_up_metrics(), made_up_latency()))
    assert [row[0] for row in page.rows] == ["model", *VARIANTS]


def test_the_cpu_of_the_latencies_is_named_and_cannot_become_markup(pictures):
    name = """<img src='x'> & "Co" <script>"""
    page = written(pictures, made_up_latency(cpu=name))
    assert f"Latency on {name}, 1 thread, load 0.04 before and 1.00 after, 2,445 MHz, 95th percentiles" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == len(PICTURES)
    assert "script" not in {tag for tag, _ in page.tags}


def test_the_page_works_before_latency_was_measured(pictures):
    (pictures / "latency.png").unlink()
    page = written(pictures, latency={})
    assert page.rows == rows_of(comparison(made_up_metrics(), {}))
    assert sum(tag == "img" for tag, _ in page.tags) == len(PICTURES) - 1
    assert "latency" not in page.text.lower()


def test_equal_metrics_and_pictures_give_equal_bytes(pictures):
    written(pictures)
    first = (pictures / "report.html").read_bytes()
    written(pictures)
    assert (pictures / "report.html").read_bytes() == first


def test_the_page_says_every_sentence_of_the_summary_and_names_the_pruned_layers(pictures):
    rows = [{"layer": "<conv> & co", "weights": "8", "pruned": "4", "sparsity": "0.5"}]
    write_csv(pictures / "sparsity.csv", rows[0], rows)
    page, metrics, latency = written(pictures), made_up_metrics(), made_up_latency()
    for sentence in [*headline(metrics, latency), *explain(metrics, latency, rows)]:
        assert sentence in page.text
    assert "in the layer <conv> & co, half of the weights are zero" in page.text
    assert "conv" not in {tag for tag, _ in page.tags}


def test_no_title_of_a_picture_and_no_sentence_is_escaped_twice(pictures, monkeypatch):
    monkeypatch.setitem(TITLES, "comparison", 'Before & "after"')
    page = written(pictures)
    assert 'Before & "after"' in page.text
    assert 'Before & "after"' in [attributes.get("alt") for _, attributes in page.tags]
    assert "&amp;" not in page.text


def test_what_was_skipped_and_converted_is_listed_where_something_was(pictures, tmp_path):
    images = pictures / "images.csv"
    images.write_text("finding,images,paths\n")
    write_page(tmp_path / "page.html", made_up_metrics(), {}, pictures)
    assert "Images that were" not in Page(tmp_path / "page.html").text
    images.write_text("finding,images,paths\nskipped: <broken>,2,a/1.png; b/{0}.png\n")
    write_page(tmp_path / "page.html", made_up_metrics(), {}, pictures)
    page = Page(tmp_path / "page.html")
    assert "2 skipped: <broken>: a/1.png; b/{0}.png" in page.text
    assert "broken" not in [tag for tag, _ in page.tags]


def test_the_page_says_what_runs_in_int8_and_warns_where_it_is_little(pictures):
    layers = [Layer("conv", 100, 90, 32, 700, False), Layer("fc", 10, 10, 8, 300, True)]
    write_csv(pictures / "coverage.csv", *coverage_table(measure_coverage(layers, [], [], "static")))
    text = written(pictures).text
    assert "In the optimized file, 30% of the MACs run on 8-bit integers; 9% of the weights take 8 bits." in text
    assert "warning: less than 90% of the MACs run on 8-bit integers. In float32 stays conv: " in text


def test_the_page_warns_of_a_file_that_is_slower_than_its_network_in_float32(pictures):
    latency = made_up_latency()
    assert "warning" not in written(pictures, latency).text
    slow = {"speedup": 0.5, "speedup_low": 0.4, "speedup_high": 0.6, "precise": True, "verdict": "slower"}
    latency["optimized"] = latency["optimized"] | {
        "batch_1": latency["optimized"]["batch_1"] | {"against_recalibrated": slow}
    }
    assert "warning: at batch 1 the optimized file runs 0.50 times" in written(pictures, latency).text


def test_the_page_warns_of_a_speed_that_was_not_measured_precisely(pictures):
    latency = made_up_latency()
    latency["optimized"] = latency["optimized"] | {"batch_1": latency["optimized"]["batch_1"] | {"precise": False}}
    text = written(pictures, latency).text
    assert "warning: at batch 1 optimized against original in PyTorch is 2.00 [1.90, 2.10] times as fast" in text
    assert "(not precise: the machine was busy)" in text
