"""The real pipeline on the embedded data set, by the commands that a user types."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from lightweight.batchnorm import reestimate_batchnorm
from lightweight.core.files import read_csv
from lightweight.core.variants import VARIANTS
from lightweight.data.augmentation import AugmentParams
from lightweight.data.dataset_file import load_dataset
from lightweight.evaluation.scores import COMPARED, SHOWN
from lightweight.networks.model_file import load_model
from lightweight.onnx.logits import onnx_logits
from lightweight.onnx.session import load_inference_session
from lightweight.reporting.results import Scores, parse_scores, read_scores
from tests.contract import ROOT
from tests.pipeline.test_contract import STALE as ROOMS
from tests.pipeline.test_contract import outs_of
from tests.pipeline.test_processes import SMALL
from tests.workspace import QUICK_BENCHMARK, Workspace, commit_all, copy_project

STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]

# Every key of params.yaml, and the stages whose declared dependencies change with it. What these stages write decides
# about the ones behind them.
STALE = {
    "seed": {
        "check",
        "prepare",
        "train",
        "swa",
        "prune",
        "sensitivity",
        "bn_update",
        "quantize",
        "compact",
        "evaluate",
    },
    "arithmetic": {
        "check",
        "prepare",
        "train",
        "swa",
        "prune",
        "sensitivity",
        "bn_update",
        "quantize",
        "compact",
        "evaluate",
    },
    "threads": {"check", "train", "swa", "prune", "sensitivity", "bn_update", "quantize", "compact", "evaluate"}
    | {"benchmark", "provenance"},
    "prepare": {"check", "prepare"},
    "train": {"check", "train", "swa", "prune", "quantize", "compact", "provenance"},
    "swa": {"check", "swa"},
    "prune": {"check", "prune"},
    "sensitivity": {"check", "sensitivity"},
    "bn_update": {"check", "bn_update", "compact"},
    "quantize": {"check", "quantize"},
    "compact": {"check", "compact"},
    "evaluate": {"check", "evaluate"},
    "benchmark": {"check", "benchmark"},
}

FINGERPRINTS = {
    "images": {"prepare"},
    "network": {"train"},
    "weights": {"train"},
    "teacher": {"train", "swa", "prune", "quantize", "compact"},
}  # whose files these stages open

BESIDE = {
    name: {"work"} for name in ("prepare", "train", "swa", "prune", "sensitivity", "quantize", "compact")
}  # checkpoints and costs
BESIDE |= {"benchmark": {"metrics/latency", "plots/turns.csv"}}  # no outs: not for dvc.lock
BESIDE |= {"provenance": {"metrics/provenance.json"}}
BESIDE["plot"] = {f"plots/{name}.png" for name in ("comparison", "training", "sparsity", "sensitivity", "confusion")}
UNREAD = {
    "prepare": {"data/checked"},  # an order, not an input: a bad value ends the run before any work
    "swa": {"models/original.safetensors"},  # read where swa.start is null
}

LIST_STALE = """
import json, sys
from pathlib import Path
from dvc.repo import Repo

params = Path(sys.argv[1])
whole = params.read_text()
stale = {}
for key, text in json.load(sys.stdin).items():
    params.write_text(text)
    stale[key] = sorted(name for name in Repo().status())
params.write_text(whole)
print(json.dumps(stale))
"""


LIST_STALE_ROOMS = """
import json, sys
from pathlib import Path
from dvc.repo import Repo

stale = {}
for room, place in json.load(sys.stdin).items():
    file = Path(place)
    file = file if file.is_file() else max(file.glob("*.py"), key=lambda path: path.stat().st_size)
    whole = file.read_bytes()
    file.write_bytes(whole + b"# a change\\n")
    stale[room] = sorted(name for name in Repo().status())
    file.write_bytes(whole)
print(json.dumps(stale))
"""


@pytest.fixture(scope="module")
def done(finished) -> Workspace:
    """A workspace after `dvc repro` on the default params, from an empty cache."""
    return finished.workspace


def read(workspace: Workspace, name: str) -> dict:
    return json.loads((workspace.path / name).read_text())


def dotted(content: dict, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in content.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def paths(entries: list) -> set[str]:
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}


def answer_of(workspace: Workspace, command: list[str], question: dict) -> dict:
    """Give a command JSON on its input; its answer is the JSON on the last line of its output."""
    options = {"cwd": workspace.path, "env": workspace.environment, "capture_output": True, "text": True}
    output = subprocess.run(command, input=json.dumps(question), check=True, **options).stdout
    return json.loads(output.splitlines()[-1])


def is_code(path: str) -> bool:
    return path.startswith(("stages/", "lightweight"))


def covered(file: str, declared: set[str]) -> bool:
    return any(file == path or file.startswith(f"{path}/") for path in declared)


def scores_of(workspace: Workspace) -> Scores:
    return read_scores(workspace.path / "plots/models.csv")


def test_only_the_last_variant_is_smaller(done):
    metrics = scores_of(done)
    sizes = {name: metrics[name]["size_bytes"] for name in metrics}
    assert sizes["optimized"] == (done.path / "models/optimized.onnx").stat().st_size
    assert sizes["original"] == pytest.approx(25.08e6, rel=0.01)
    assert sizes["original"] / sizes["optimized"] > 50
    assert metrics["optimized"]["mcnemar_p"] > 0.05
    assert metrics["optimized"]["int8_mac_share"] > 0.5
    for name in metrics:
        assert metrics[name]["accuracy_low"] <= metrics[name]["accuracy"] <= metrics[name]["accuracy_high"]
        assert metrics[name]["accuracy"] > 0.95


def test_accuracy_agrees_with_the_committed_one_within_their_intervals(done):
    for name, ours in scores_of(done).items():
        committed = read_scores(ROOT / "plots/models.csv")[name]
        assert ours["accuracy_low"] <= committed["accuracy_high"], name
        assert committed["accuracy_low"] <= ours["accuracy_high"], name


def test_bn_update_changes_running_statistics_and_nothing_else(done):
    pruned, recalibrated = (
        load_model(done.path / f"models/{name}.safetensors").model.state_dict() for name in ("pruned", "recalibrated")
    )
    changed = {name for name, tensor in pruned.items() if not torch.equal(tensor, recalibrated[name])}
    statistics = {name for name in pruned if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert changed == statistics


def test_the_new_statistics_are_those_of_images_augmented_as_in_training(done):
    params = YAML(typ="safe").load(done.path / "params.yaml")
    data, section = load_dataset(done.path / "data/prepared.safetensors"), params["bn_update"]
    pruned, recalibrated = (
        load_model(done.path / f"models/{name}.safetensors").model for name in ("pruned", "recalibrated")
    )
    augmentation = AugmentParams(**params["train"]["augment"])
    assert augmentation.is_on
    reestimate_batchnorm(pruned, data, section["num_images"], section["batch_size"], params["seed"], augmentation)
    for name, tensor in recalibrated.state_dict().items():
        torch.testing.assert_close(pruned.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def test_averaging_goes_on_from_the_learning_rate_of_its_snapshot(done):
    history = {name: read_csv(done.path / f"plots/{name}.csv") for name in ("train", "swa")}
    assert [int(row["epoch"]) for row in history["swa"]] == [6, 7, 8, 9, 10]
    snapshot = load_model(done.path / "models/snapshots/0005.safetensors")
    assert snapshot.notes == {"epoch": 5, "lr": float(history["train"][4]["lr"])}
    assert 0.003 < float(history["swa"][0]["lr"]) < snapshot.notes["lr"]
    assert float(history["swa"][-1]["lr"]) == pytest.approx(0.003)


def test_nothing_runs_a_second_time(done):
    output = done.run("dvc", "repro")
    assert "Running stage" not in output
    assert "up to date" in output
    assert done.run("dvc", "status").strip().endswith("Data and pipelines are up to date.")


def test_latency_is_measured_for_every_model_and_is_in_no_lock(done):
    for name in ("original", "exported", "optimized"):
        entry = read(done, f"metrics/latency/{name}.json")
        assert entry["cpu"]
        assert entry["threads"] == 1
        assert entry["batch_1"]["latency_ms"] > 0
        assert entry["batch_64"]["latency_ms"] > 0
    assert "latency" not in (done.path / "dvc.lock").read_text()


def test_pictures_and_page_are_drawn_and_plots_show_works(done):
    table = done.run(sys.executable, "-m", "tools.report")
    assert "optimized" in table
    for name in ("comparison", "latency", "training", "sparsity", "confusion"):
        assert (done.path / f"plots/{name}.png").read_bytes().startswith(b"\x89PNG"), name
    page = (done.path / "plots/report.html").read_text()
    assert 0 < page.count("data:image/png;base64,") <= 40, "images on which the models disagree, or are less sure"
    assert page.count("<svg") == 2 + 2 + 2 + 2, "fronts, confusions, curves, latencies"
    assert len(page) < 1_000_000
    card = (done.path / "models/README.md").read_text()
    assert hashlib.sha256((done.path / "models/optimized.onnx").read_bytes()).hexdigest() in card
    output = done.run("dvc", "plots", "show", "--out", str(done.path / "dvc_plots"))
    shown = (done.path / "dvc_plots/index.html").read_text()
    assert "ERROR" not in output
    for name in ("train_loss", "val_accuracy", "comparison.png", "size_bytes", "predicted"):
        assert name in shown, name


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["sections", "keys"])
def test_each_key_makes_exactly_the_expected_stages_stale(done, every):
    whole = (done.path / "params.yaml").read_text()
    values = dotted(YAML(typ="safe").load(whole))
    if not every:  # the last key of each section, and of each section within one
        values = {key.rpartition(".")[0] or key: (key, value) for key, value in values.items()}
        values = dict(values.values())
    texts = {}
    for key, value in values.items():
        content = YAML(typ="safe").load(whole)
        *parents, last = key.split(".")
        section = content
        for name in parents:
            section = section[name]
        section[last] = [*value, 7] if isinstance(value, list) else not value if isinstance(value, bool) else "changed"
        texts[key] = json.dumps(content)  # JSON is YAML
    stale = answer_of(done, [sys.executable, "-c", LIST_STALE, "params.yaml"], texts)
    augmented = {key: {"sensitivity", "bn_update"} for key in values if key.startswith("train.augment")}  # statistics
    expected = {key: STALE[key.split(".")[0]] | augmented.get(key, set()) for key in values}
    assert {key: set(stages) for key, stages in stale.items()} == expected


def test_another_fingerprint_makes_exactly_the_stages_stale_that_read_what_it_stands_for(done):
    whole = (done.path / "fingerprints.yaml").read_text()
    texts = {key: whole.replace(f"{key}: none", f"{key}: sha256-0") for key in FINGERPRINTS}
    stale = answer_of(done, [sys.executable, "-c", LIST_STALE, "fingerprints.yaml"], texts)
    assert {key: set(stages) for key, stages in stale.items()} == FINGERPRINTS


def test_a_change_in_a_room_makes_exactly_the_stages_of_the_matrix_stale(done):
    command = [sys.executable, "-c", LIST_STALE_ROOMS]
    rooms = {room: f"lightweight/{room}" for room in ROOMS}
    stale = answer_of(done, command, rooms)
    assert {room: set(stages) for room, stages in stale.items()} == {room: {"check", *ROOMS[room]} for room in ROOMS}


def kept_weights(sparsity: str) -> int:
    """Of all layers in the text of a plots/sparsity.csv."""
    return sum(int(row["weights"]) - int(row["pruned"]) for row in csv.DictReader(io.StringIO(sparsity)))


def test_another_prune_amount_retrains_nothing_and_shows_in_the_metrics(done):
    output = done.run("dvc", "exp", "run", "--temp", "--name", "p07", "-S", "prune.amount=0.7", "-S", "prune.epochs=1")
    ran = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    stale = ["check", "prune", "bn_update", "quantize", "compact", "evaluate", "benchmark", "provenance", "plot"]
    assert sorted(ran) == sorted(stale)
    before = done.run("git", "show", "HEAD:plots/sparsity.csv")
    experiment = next(line for line in done.run("git", "for-each-ref").splitlines() if line.endswith("/p07"))
    after = done.run("git", "show", f"{experiment.split()[0]}:plots/sparsity.csv")
    assert kept_weights(before) < kept_weights(after), "0.8 of the channels against 0.7"
    difference = json.loads(done.run("dvc", "metrics", "diff", "--json", "HEAD", "p07"))
    assert list(difference) == ["metrics/optimized.json"]
    assert difference["metrics/optimized.json"]["parameters"]["diff"] > 0


@pytest.mark.slow
def test_the_compact_file_is_a_variant_whose_unpacked_file_gives_the_accuracy_of_its_row(done, tmp_path):
    changes = ("-S", "compact.enabled=true", "-S", "compact.epochs=1")
    output = done.run("dvc", "exp", "run", "--temp", "--name", "compact", *changes)
    ran = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    assert sorted(ran) == ["check", "compact", "evaluate", "plot", "provenance"]
    ref = next(line for line in done.run("git", "for-each-ref").splitlines() if line.endswith("/compact")).split()[0]
    rows = csv.DictReader(io.StringIO(done.run("git", "show", f"{ref}:plots/models.csv")))
    scores = parse_scores(rows, Path("plots/models.csv"))
    (made,) = YAML(typ="safe").load(done.run("git", "show", f"{ref}:dvc.lock"))["stages"]["compact"]["outs"][:1]
    content = (done.path / ".dvc/cache/files/md5" / made["md5"][:2] / made["md5"][2:]).read_bytes()
    assert list(scores) == [*VARIANTS, "compact"]
    assert scores["compact"]["size_bytes"] == len(content) < scores["optimized"]["size_bytes"] / 3
    assert scores["compact"]["accuracy"] > 0.9
    (tmp_path / "small.lwz").write_bytes(content)
    done.run(sys.executable, "-m", "tools.unpack", str(tmp_path / "small.lwz"))
    test = load_dataset(done.path / "data/prepared.safetensors").test
    logits = onnx_logits(load_inference_session(tmp_path / "small.onnx", 1), test, 64)
    assert float((logits.argmax(1) == test.labels.numpy()).mean()) == scores["compact"]["accuracy"]
    (tmp_path / "small.lwz").write_bytes(content[:-1])
    line = done.run(sys.executable, "-m", "tools.unpack", str(tmp_path / "small.lwz"), code=1).strip()
    assert line.startswith(f"error: {tmp_path / 'small.lwz'}: is cut off or damaged")


def test_metrics_show_prints_a_row_of_the_same_ten_keys_for_the_original_and_for_the_optimized_file(done):
    shown = json.loads(done.run("dvc", "metrics", "show", "--json"))[""]["data"]
    assert list(shown) == ["metrics/original.json", "metrics/optimized.json"]
    scores = scores_of(done)
    for name in COMPARED:
        assert shown[f"metrics/{name}.json"]["data"] == {key: scores[name][key] for key in SHOWN}
    assert len(SHOWN) == 10


@pytest.mark.slow
def test_the_baseline_is_the_original_uncompressed_and_metrics_diff_compares_the_optimized_file_with_it(done):
    _as_installed(done)
    output = done.run("make", "baseline")
    ran = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    assert ran == ["check", "swa", "prune", "bn_update", "quantize", "compact", "evaluate"]
    difference = json.loads(done.run("dvc", "metrics", "diff", "--json", "original"))
    assert list(difference) == ["metrics/optimized.json"]
    original, optimized = (read(done, f"metrics/{name}.json") for name in COMPARED)
    changes = difference["metrics/optimized.json"]
    assert changes["size_bytes"]["old"] == pytest.approx(original["size_bytes"], rel=0.01)
    assert changes["size_bytes"]["new"] == optimized["size_bytes"]
    for key in ("macs", "accuracy"):
        assert changes.get(key, {"old": optimized[key]})["old"] == original[key], "nothing but the format of the file"


def _as_installed(workspace: Workspace) -> None:
    """Give the copy the environment that runs the tests, as if `make setup` had made it."""
    (workspace.path / ".venv").mkdir(exist_ok=True)
    (workspace.path / ".venv/installed").touch()


@pytest.mark.slow
def test_an_archive_without_git_runs_the_pipeline_and_says_what_needs_git(done, tmp_path):
    archive = copy_project(tmp_path / "archive")
    shutil.copy2(done.path / "dvc.lock", archive.path)
    archive.run("dvc", "config", "--local", "cache.dir", str(done.path / ".dvc/cache"))
    for name in ("metrics", "plots"):
        shutil.copytree(done.path / name, archive.path / name)
    _as_installed(archive)
    output = archive.run("make", "repro")
    assert "\noptimized" in output
    assert (archive.path / "models/optimized.onnx").read_bytes() == (done.path / "models/optimized.onnx").read_bytes()
    for target in ("baseline", "recipe"):
        assert "needs a git clone" in archive.run("make", target, "NAME=mnist", code=2)


@pytest.mark.slow
def test_a_folder_of_photographs_becomes_a_model_and_a_report_of_what_was_skipped(tmp_path):
    """What a new user does: copy the recipe, name the folder, run it."""
    project = copy_project(tmp_path / "project")
    commit_all(project)
    random = np.random.default_rng(0)
    for index in range(48):
        size = (random.integers(40, 90), random.integers(40, 90))
        pixels = random.integers(0, 90, (*size, 3)) + np.array([0, 0, 160 * (index % 2)])
        photo = Image.fromarray(pixels.astype(np.uint8)).convert("L" if index in (4, 7) else "RGB")
        path = tmp_path / "my photos" / ("sea" if index % 2 else "wood") / f"{index:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path)
    broken = tmp_path / "my photos/sea/01.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    shutil.copy2(project.path / "recipes/folder.yaml", project.path / "params.yaml")
    project.set_params(
        ("  path: data/raw/cifar10-images ", f"  path: {tmp_path / 'my photos'} "),
        ("  start: 8 ", "  start: 2 "),
        ("  epochs: 12 ", "  epochs: 4 "),
        ("  batch_size: 128\n  shards", "  batch_size: 8\n  shards"),
        ("  max_accuracy_drop: 0.01 ", "  max_accuracy_drop: 1.0 "),
    )
    _as_installed(project)
    output = project.run("make", "repro")
    assert "Traceback" not in output
    assert "1 skipped: image file is truncated" in output
    assert "sea/01.jpg" in output
    assert "2 images converted from L to RGB: sea/07.jpg; wood/04.jpg" in output
    assert read(project, "metrics/original.json")["accuracy"] > 0.9, "blue pictures against grey ones"
    findings = {row["finding"]: int(row["images"]) for row in read_csv(project.path / "plots/images.csv")}
    assert findings["resized to 32x32"] == 47
    page = (project.path / "plots/report.html").read_text()
    assert "2 converted from L to RGB: sea/07.jpg; wood/04.jpg" in page
    assert "sea/01.jpg" in page
    assert json.loads(project.run("dvc", "metrics", "show", "--json"))
    session = onnxruntime.InferenceSession(project.path / "models/optimized.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["sea", "wood"]
    assert list_stale(project) == set()
    photo.save(tmp_path / "my photos/sea/new.jpg")
    assert list_stale(project) == set(), "DVC does not look into the folder"
    project.run(sys.executable, "-m", "tools.fingerprints")
    assert list_stale(project) == {"prepare"}
    project.run("dvc", "repro", "prepare")
    project.run(sys.executable, "-m", "tools.fingerprints")
    assert "prepare" not in list_stale(project)


def list_stale(workspace: Workspace) -> set[str]:
    return set(json.loads(workspace.run("dvc", "status", "--json")))


@pytest.mark.parametrize("changes", [SMALL, pytest.param((), marks=pytest.mark.slow)], ids=["quick", "default"])
def test_stages_read_and_write_what_they_declare_and_repeat_every_byte_without_dvc(done, tmp_path, changes):
    plain = copy_project(tmp_path / "other place")
    plain.set_params(*QUICK_BENCHMARK, *changes)
    same = ("check", "prepare") if changes else STAGES
    lock = YAML(typ="safe").load(done.path / "dvc.lock")["stages"]
    for name in _order():
        log = tmp_path / f"{name}.json"
        changed = {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C", "USER": "another", "LOGNAME": "another"}
        changed |= {"HOME": str(tmp_path / "another home")}
        plain.run(sys.executable, "-m", "tests.audit", f"stages.{name}", str(log), **changed)
        noted = json.loads(log.read_text())
        stage = STAGES[name]
        outs = set(outs_of(stage))
        deps = {path for path in paths(stage["deps"]) if not is_code(path)}
        params = {"params.yaml"} if "params" in stage else set()
        beside = BESIDE.get(name, set())
        reads = {file for file in noted["read"] if not covered(file, outs | beside)}
        assert {file for file in reads if not covered(file, deps | params)} == set(), f"{name} reads undeclared files"
        unread = {path for path in deps | params if not any(covered(file, {path}) for file in noted["read"])}
        shards = {"data/prepared"}  # read where a data set is in shards
        assert unread <= UNREAD.get(name, set()) | shards | beside, f"{name} declares what it does not read"
        written = {file for file in noted["written"] if not covered(file, beside)}
        assert {file for file in written if not covered(file, outs)} == set(), f"{name} writes undeclared files"
        assert {path for path in outs if not any(covered(file, {path}) for file in written)} == set()
        for out in lock[name].get("outs", []) if name in same else ():
            path = plain.path / out["path"]
            if path.is_file():
                assert hashlib.md5(path.read_bytes()).hexdigest() == out["md5"], f"{out['path']} differs"
            else:
                theirs = {file.name: file.read_bytes() for file in (done.path / out["path"]).iterdir()}
                assert {file.name: file.read_bytes() for file in path.iterdir()} == theirs


def _order() -> list[str]:
    """The stages, each after those whose outs it depends on; dvc.yaml lists them so."""
    made: set[str] = set()
    for stage in STAGES.values():
        assert all(is_code(path) or path in made for path in paths(stage["deps"]))
        made |= set(outs_of(stage))
    return list(STAGES)


@pytest.mark.slow
def test_two_forced_runs_leave_lock_and_metrics_byte_identical(done):
    def state() -> dict[str, bytes]:
        files = [done.path / "dvc.lock", *sorted(Path(done.path / "metrics").glob("*.json"))]
        return {file.name: file.read_bytes() for file in files}

    first = state()
    done.run("dvc", "repro", "--force")
    assert state() == first
