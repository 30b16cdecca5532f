"""`make repro` ends with a table that fits a terminal, whole sentences, and the page; other stages import no pandas."""

import hashlib
import json

import pytest

from lightweight.core.files import write_bytes, write_csv, write_json
from lightweight.core.variants import VARIANTS
from lightweight.data.dataset_file import save_dataset
from lightweight.onnx.coverage import coverage_table, measure_coverage
from lightweight.onnx.layer import Layer
from lightweight.reporting.summary import explain, headline
from tests.examples import made_up_latency, made_up_metrics, write_scores
from tools import ledger, report

SPARSITY = [{"layer": f"conv{number}", "weights": "8", "pruned": "4", "sparsity": "0.5"} for number in (1, 2, 3)]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Make a workspace as after `dvc repro`, with made-up metrics."""
    monkeypatch.chdir(tmp_path)
    write_scores(tmp_path / "plots/models.csv", made_up_metrics())
    for name, content in made_up_latency().items():
        write_json(tmp_path / f"metrics/latency/{name}.json", content)
    layers = measure_coverage([Layer("fc", 10, 10, 8, 300, True)], [], [], "static")
    write_csv(tmp_path / "plots/coverage.csv", *coverage_table(layers))
    write_csv(tmp_path / "plots/sparsity.csv", SPARSITY[0], SPARSITY)
    return tmp_path


def test_it_prints_a_table_that_fits_the_terminal_and_every_sentence_and_writes_the_page(workspace, capsys):
    report.main()
    lines = capsys.readouterr().out.splitlines()
    table, sentences = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert max(map(len, table)) <= 120
    assert [line.rstrip() for line in lines] == lines
    expected = [*headline(made_up_metrics(), made_up_latency())]
    expected += explain(made_up_metrics(), made_up_latency(), SPARSITY)
    assert sentences[: len(expected)] == expected
    assert any("the layers conv1 to conv3" in sentence for sentence in sentences)
    assert (workspace / "plots/report.html").exists()
    assert (workspace / "plots/latency.png").exists()
    assert (workspace / "metrics/ledger.csv").read_text().startswith("model,timed_in,accuracy,")
    assert not (workspace / "models").exists(), "no card of a model that is not there"


def test_the_card_is_written_beside_the_model_with_its_hash(workspace, tiny_dataset):
    params = {"train": {"network": "cnn"}, "quantize": {"license": "MIT", "method": "static"}}
    params |= {"prepare": {"dataset": "digits", "image_size": 28, "channels": 1}}
    (workspace / "params.yaml").write_text(json.dumps(params))
    save_dataset(workspace / "data/prepared.safetensors", tiny_dataset)
    for name in ("optimized.onnx", "original.safetensors"):
        write_bytes(workspace / "models" / name, name.encode())
    report.main()
    card = (workspace / "models/README.md").read_text()
    assert hashlib.sha256(b"optimized.onnx").hexdigest() in card
    assert "license: mit" in card
    assert "Classes: 0, 1, 2" in card


def test_the_ledger_prints_what_it_writes(workspace, capsys):
    ledger.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["original", "exported"]
    assert max(map(len, lines)) <= 120
    rows = (workspace / "metrics/ledger.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["model", "original", "exported", *VARIANTS[1:]]


def test_it_tells_how_busy_the_machine_was_and_warns_of_what_was_not_measured_precisely(workspace, capsys):
    report.main()
    text = capsys.readouterr().out
    assert "Latency on A CPU, 1 thread, load 0.04 before and 1.00 after, 2,445 MHz, 95th percentiles up to 1.60" in text
    assert "not precise" not in text
    latency = made_up_latency()["optimized"]
    latency["batch_64"] = latency["batch_64"] | {"precise": False}
    (workspace / "metrics/latency/optimized.json").write_text(json.dumps(latency))
    report.main()
    assert "warning: at batch 64 optimized against original in PyTorch is 2.00 [1.90, 2.10]" in capsys.readouterr().out


def test_it_says_that_results_depend_on_the_number_of_processes_where_they_do(workspace, capsys):
    sentence = "Trained with train.exact: false on 3 processes: another number of processes gives other weights"
    record = {"data/prepared.safetensors": {"processes": 8}, "models/original.safetensors": {"threads": 1}}
    for entry in ({"threads": 1}, {"threads": 1, "processes": 3}):
        (workspace / "metrics/provenance.json").write_text(json.dumps(record | {"models/optimized.onnx": entry}))
        report.main()
        for text in (capsys.readouterr().out, (workspace / "plots/report.html").read_text()):
            assert (sentence in text) == ("processes" in entry)
            assert "8 processes" not in text, "no process prepares"


def test_the_stages_that_make_models_and_metrics_do_not_wait_for_pandas_or_jinja(start_python):
    names = "check prepare train swa prune sensitivity bn_update quantize evaluate benchmark provenance"
    imports = ", ".join(f"stages.{name}" for name in names.split())
    code = (
        f"import sys, {imports}; print(sorted({{'pandas', 'tabulate', 'jinja2', 'matplotlib'}} & sys.modules.keys()))"
    )
    assert start_python(code).communicate(timeout=120) == ("[]\n", "")
