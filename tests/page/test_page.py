"""The page is one small file that loads nothing: every section of it is inside, and no name can become markup."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lightweight.core.files import write_csv
from lightweight.evaluation.layers import LAYER_COLUMNS
from lightweight.onnx.coverage import coverage_table, measure_coverage
from lightweight.onnx.layer import Layer
from lightweight.page.experiments import Experiment
from lightweight.page.page import Report, write_page
from lightweight.reporting.summary import explain, headline
from lightweight.reporting.verdict import figures, verdict
from tests.examples import made_up_latency, made_up_metrics

MAX_BYTES = 1_000_000
MAX_LINES_OF_SCRIPT = 120
EVIL = """<img src='x'> & "Co" <script>"""


class Page(HTMLParser):
    """Every tag with its attributes, and the text outside of style and script."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.inside = "", ""
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data) -> None:
        if self.inside not in ("style", "script"):
            self.text += data

    def handle_endtag(self, tag) -> None:
        self.inside = ""

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture
def plots(tmp_path) -> Path:
    """Make the tables of a finished pipeline."""
    folder = tmp_path / "plots"
    layers = [Layer("conv", 100, 90, 32, 700, False), Layer("fc", 10, 10, 8, 300, True)]
    epochs = [{"epoch": n, "lr": 1, "train_loss": 1, "val_loss": 1 / n, "val_accuracy": 0.5} for n in (1, 2, 3)]
    answers = ("actual", "predicted", "confidence", "original", "original_confidence")
    predictions = [
        dict(zip(answers, row, strict=True)) for row in (("1", "2", 0.9, "1", 0.8), ("2", "2", 0.9, "1", 0.5))
    ]
    tables = {
        "coverage": coverage_table(measure_coverage(layers, [], [], "static")),
        "layers": (LAYER_COLUMNS, [dict(zip(LAYER_COLUMNS, ("conv", "5x20", 1, "5x20", 1), strict=True))]),
        "sparsity": (
            ["layer", "weights", "pruned", "sparsity"],
            [{"layer": "conv", "weights": 8, "pruned": 4, "sparsity": 0.5}],
        ),
        "predictions": (answers, predictions),
        "train": (epochs[0], epochs),
    }
    for name, (columns, rows) in tables.items():
        write_csv(folder / f"{name}.csv", columns, rows)
    return folder


def timed(cpu: str = "A CPU") -> dict:
    """Make up latencies in which the optimized file is compared with the original in the same runtime."""
    latency = made_up_latency(cpu)
    ratio = {"speedup": 3.0, "speedup_low": 2.5, "speedup_high": 3.5, "precise": True, "verdict": "faster"}
    batches = {key: own | {"against_exported": ratio} for key, own in latency["optimized"].items() if "batch_" in key}
    return latency | {"optimized": latency["optimized"] | batches}


def written(plots: Path, latency=None, **more) -> Page:
    path = plots / "report.html"
    given = {"read_images": lambda numbers: np.zeros((len(numbers), 1, 8, 8), dtype=np.uint8)} | more
    write_page(path, Report(made_up_metrics(), timed() if latency is None else latency, plots, **given))
    return Page(path)


def test_the_page_is_small_and_points_to_nothing_outside_itself(plots):
    page = written(plots)
    for tag, attributes in page.tags:
        for name in attributes.keys() & {"src", "href", "srcset", "action"}:
            assert str(attributes[name]).startswith(("data:", "#")), (tag, attributes)
    assert {tag for tag, _ in page.tags}.isdisjoint({"iframe", "object", "embed"})
    for trace in ("http://", "https://", "url(", "@import", "fetch(", str(plots)):
        assert trace not in page.source
    assert len(page.source) < MAX_BYTES
    script = page.source.partition("<script>")[2].partition("</script>")[0]
    assert len(script.strip().splitlines()) <= MAX_LINES_OF_SCRIPT


def test_what_a_reader_asks_first_comes_first_and_all_sections_follow_in_their_order(plots):
    page = written(plots)
    place = page.text.index(verdict(made_up_metrics(), timed()))
    for figure in figures(made_up_metrics(), timed()):
        place = page.text.index(figure.change, place)
        assert figure.sure in page.text
    assert place < page.text.index("Repeat it.") < page.text.index("Every experiment")
    order = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert order == ["experiments", "ledger", "layers", "images", "confusion", "training", "latency", "again"]
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"} - {"#main"}
    assert links == {f"#{name}" for name in order if name != "confusion"}


def test_the_page_says_every_sentence_of_the_summary_and_names_the_pruned_layers(plots):
    rows = [{"layer": EVIL, "weights": "8", "pruned": "4", "sparsity": "0.5"}]
    write_csv(plots / "sparsity.csv", rows[0], rows)
    page, metrics, latency = written(plots), made_up_metrics(), timed()
    for sentence in [*headline(metrics, {}), *explain(metrics, {}, rows)]:
        assert sentence in page.text
    assert headline(metrics, latency)[0] in page.text
    assert f"in the layer {EVIL}, half of the weights are zero" in page.text


def test_no_name_of_anything_can_become_markup(plots):
    before = written(plots)
    params = {"train.network": EVIL, "prepare.dataset": EVIL}
    experiment = Experiment(EVIL, made_up_metrics()["pruned"], {}, params | {"prune.amount": EVIL})
    layers = [Layer(EVIL, 100, 90, 32, 700, False)]
    write_csv(plots / "coverage.csv", *coverage_table(measure_coverage(layers, [], [], "static")))
    (plots / "images.csv").write_text("finding,images,paths\n<script>x</script>,2,a/1.png; b/{0}.png\n")
    rows = [{"actual": EVIL, "predicted": EVIL, "confidence": 1, "original": "b", "original_confidence": 1}]
    write_csv(plots / "predictions.csv", rows[0], rows)
    origin = {
        "commit": None,
        "md5": EVIL,
        "cpu": EVIL,
        "threads": 1,
        "platform": EVIL,
        "python": EVIL,
        "versions": {EVIL: EVIL},
    }
    record = {"models/optimized.onnx": origin}
    page = written(plots, timed(cpu=EVIL), params=params, experiments=[experiment], record=record, notes=[EVIL])
    assert page.count("script") == before.count("script") == 1
    assert page.count("img") == 1, "the one image that was gained"
    assert page.text.count(EVIL) > 8
    assert "&amp;amp;" not in page.source


def test_the_page_works_before_anything_but_scores_was_measured(tmp_path):
    page = written(tmp_path, latency={})
    assert "latency" not in page.text.lower()
    assert page.count("svg") == 1, "the front"
    order = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert order == ["experiments", "ledger", "images", "confusion", "again"]


def test_equal_results_give_equal_bytes(plots):
    assert written(plots).source == written(plots).source


def test_every_experiment_on_the_same_images_is_in_the_front_with_its_command(plots):
    params = {"prepare.dataset": "digits", "prune.amount": 0.5}
    timed = {"batch_1": {"latency_ms": 0.7}}
    experiments = [
        Experiment("slim;ls", made_up_metrics()["pruned"], timed, params | {"prune.amount": 0.9}),
        Experiment("other", made_up_metrics()["pruned"], {}, params | {"prepare.dataset": "mnist"}),
    ]
    page = written(plots, params=params, experiments=experiments)
    commands = [attributes["data-copy"] for tag, attributes in page.tags if tag == "g" and "data-copy" in attributes]
    assert commands == ["dvc exp apply 'slim;ls'"] * 2, "against bytes and against milliseconds, for any shell"
    tips = [attributes["data-tip"] for tag, attributes in page.tags if "data-tip" in attributes]
    assert sum("prune.amount=0.9" in str(tip) for tip in tips) == 2
    assert "1 more was scored on other images" in page.text


def test_images_that_were_gained_and_lost_are_inside(plots):
    page = written(plots)
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == [
        "1: original says 1, optimized 2",
        "2: original says 1, optimized 2",
    ]
    assert "1 of 1: only the original is right" in page.text
    assert "1 of 1: only the optimized file is right" in page.text


def test_what_was_skipped_and_converted_is_listed_where_something_was(plots):
    (plots / "images.csv").write_text("finding,images,paths\n")
    assert "Images that were" not in written(plots).text
    (plots / "images.csv").write_text("finding,images,paths\nskipped: broken,2,a/1.png; b/{0}.png\n")
    assert "2 skipped: broken: a/1.png; b/{0}.png" in written(plots).text


def test_the_page_says_what_runs_in_int8_and_warns_where_it_is_little(plots):
    text = written(plots).text
    assert "In the optimized file, 30% of the MACs run on 8-bit integers; 9% of the weights take 8 bits." in text
    assert "warning: less than 90% of the MACs run on 8-bit integers. In float32 stays conv: " in text


def test_the_page_warns_of_a_file_that_is_slower_than_its_network_in_float32(plots):
    assert "quantize saves bytes, not time" not in written(plots).text
    latency = timed()
    slow = {"speedup": 0.5, "speedup_low": 0.4, "speedup_high": 0.6, "precise": True, "verdict": "slower"}
    latency["optimized"] = latency["optimized"] | {
        "batch_1": latency["optimized"]["batch_1"] | {"against_recalibrated": slow}
    }
    assert "warning: at batch 1 the optimized file runs 0.50 times" in written(plots, latency).text


def test_the_page_warns_of_a_speed_that_was_not_measured_precisely(plots):
    latency = timed()
    latency["optimized"] = latency["optimized"] | {"batch_1": latency["optimized"]["batch_1"] | {"precise": False}}
    text = written(plots, latency).text
    assert "warning: at batch 1 optimized against original in PyTorch is 2.00 [1.90, 2.10] times as fast" in text


def test_many_classes_are_listed_by_their_confusions(plots):
    rows = [
        {
            "actual": f"c{n}",
            "predicted": f"c{n + n % 2}",
            "confidence": 1,
            "original": f"c{n}",
            "original_confidence": 1,
        }
        for n in range(60)
    ]
    write_csv(plots / "predictions.csv", rows[0], rows)
    page = written(plots)
    assert "taken for" in page.text
    assert sum(str(attributes.get("aria-label")).startswith("Confusion") for _, attributes in page.tags) == 1


def test_the_integers_of_a_microcontroller_are_a_column_of_the_ledger(plots):
    heading = ">integers</th>"
    assert heading not in written(plots).source
    assert heading in written(plots, integers={"integers": made_up_metrics()["optimized"]}).source
