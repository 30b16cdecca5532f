"""A recipe runs as an experiment; with its metrics stand budgets, control, latencies and seeds, or one line why not.

DVC is a stand-in here, which commits made-up results as experiments by the params that it is given; the last test runs
the real one.
"""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML
from scipy.stats import ttest_rel

from lightweight.checkpointing.session import Session
from lightweight.core.errors import InputError
from lightweight.core.files import write_csv, write_json
from lightweight.core.variants import VARIANTS
from lightweight.core.yaml import read_yaml
from lightweight.data.dataset_file import save_dataset
from lightweight.networks.model_file import ModelFile
from lightweight.pruning.params import PruneParams
from lightweight.pruning.pruner import Pruner
from lightweight.training.loop import FineTune
from stages import check
from tests.contract import ROOT
from tests.examples import different, made_up_latency, made_up_metrics, new, state, train_params
from tests.workspace import commit_all, copy_project
from tools.recipe import __main__ as command
from tools.recipe import seeds
from tools.recipe.control import compare, control_params
from tools.recipe.experiment import Experiment, flatten, override

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
IMAGES = 100
NO_FILES = {"images": "none", "network": "none", "weights": "none", "teacher": "none"}
real_run = subprocess.run


def git(*arguments: str) -> str:
    return real_run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def made_up_run(params: dict) -> dict[str, object]:
    """Make up what stages write: one image more is right by seed, one fewer by pruning, and two by quantization."""
    amount, before = params["prune"]["amount"], 9 - params["seed"]
    largest = max(amount.values()) if isinstance(amount, dict) else amount
    wrong = before + (largest > 0.1) + 2 * (params["quantize"]["method"] != "none")
    metrics = made_up_metrics()
    for name in VARIANTS:
        own = wrong if name == "optimized" else before
        counts = {"images": IMAGES, "gained": 0, "lost": own - before}
        accuracy = 1 - own / IMAGES
        interval = {"accuracy_low": accuracy - 0.03, "accuracy_high": accuracy + 0.03}
        metrics[name] |= {"accuracy": accuracy, **interval, **counts}
    epochs = {"train": params["train"]["epochs"], "swa": 0, "qat": 0}
    epochs |= {"prune": params["prune"]["epochs"] if largest else 0}
    return (
        {"plots/models.csv": [{"model": name, **own} for name, own in metrics.items()]}
        | {f"plots/{name}.csv": [{"epoch": epoch} for epoch in range(number)] for name, number in epochs.items()}
        | {"plots/predictions.csv": [{"actual": 1, "predicted": int(i >= wrong)} for i in range(IMAGES)]}
        | {"dvc.lock": {"stages": {"train": {"outs": [{"path": "models/original.safetensors", "md5": "abc"}]}}}}
    )


class Dvc:
    """A stand-in for DVC and for the benchmark. It lists the experiments with params, fingerprints and stages."""

    def __init__(self) -> None:
        self.runs: dict[str, tuple[dict, dict, list[str]]] = {}
        self.timed: list[dict] = []
        self.code = 0
        self.better = 0  # images that other code would get right

    def __call__(self, words: list[str], **options):
        match list(words):
            case ["dvc", "exp", "remove", "-q", name]:
                return real_run(["git", "update-ref", "-d", self._reference(name)], **options)
            case ["dvc", "exp", "run", "--temp", "-n", name, *rest]:
                return self._run(name, rest)
            case [_, "-m", "stages.benchmark"]:
                return self._benchmark(options["cwd"], options["env"])
        return real_run(words, **options)

    def _reference(self, name: str) -> str:
        head = git("rev-parse", "HEAD")
        return f"refs/exps/{head[:2]}/{head[2:]}/{name}"

    def _run(self, name: str, words: list[str]):
        changes = [word[2:] for word in words if word.startswith("-S")]
        own = [change.partition(":")[2] for change in changes if change.startswith("fingerprints.yaml:")]
        apply_overrides(Path("fingerprints.yaml"), own)
        apply_overrides(Path("params.yaml"), [change for change in changes if "fingerprints" not in change])
        params, prints = read_yaml(Path("params.yaml")), read_yaml(Path("fingerprints.yaml"))
        self.runs[name] = (params, prints, [word for word in words if not word.startswith("-S")])
        content = made_up_run(params)
        content["plots/models.csv"][-1]["gained"] += self.better
        for path, value in content.items():
            if path.endswith(".csv"):
                write_csv(Path(path), value[0] if value else ["epoch"], value)
            else:
                write_json(Path(path), value)
        git("add", ".")
        git("update-ref", self._reference(name), git("commit-tree", git("write-tree"), "-p", "HEAD", "-m", name))
        git("reset", "--quiet", "--hard")
        return SimpleNamespace(returncode=self.code)

    def _benchmark(self, folder: Path, environment: dict):
        assert environment["PYTHONPATH"].split(":")[0] == str(Path.cwd())
        self.timed.append(read_yaml(folder / "params.yaml"))
        for name, content in made_up_latency().items():
            write_json(folder / f"metrics/latency/{name}.json", content | {"threads": self.timed[-1]["threads"]})
        return SimpleNamespace(returncode=self.code)


@pytest.fixture
def dvc(tmp_path, monkeypatch, tiny_dataset) -> Dvc:
    """Go to a repository of a params.yaml and two recipes, `small` and `whole`, which compresses nothing."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("GIT_", "DVC_", "LIGHTWEIGHT_WORK"))]:
        monkeypatch.delenv(name)
    for name in ("params.yaml", "fingerprints.yaml"):
        shutil.copy2(ROOT / name, name)
    params = read_yaml(Path("params.yaml")) | {"seed": 3}
    params["prune"] |= {"epochs": 4, "amount": {"conv1": 0.5, "fc1": 0.25}}
    params["train"] |= {"epochs": 2, "batch_size": 128}
    write_json(Path("recipes/small.yaml"), params)
    params["prune"] |= {"amount": 0.0}
    params["quantize"] |= {"method": "none"}
    write_json(Path("recipes/whole.yaml"), params)
    Path(".gitignore").write_text("/recipes/\n/work/\n/weights.pth\n")
    git("init", "--quiet")
    for key, value in {"user.name": "Test", "user.email": "test@example.com"}.items():
        git("config", key, value)
    git("add", ".")
    git("commit", "--quiet", "-m", "start")
    stand_in = Dvc()
    stand_in.params = read_yaml(Path("recipes/small.yaml"))

    @contextmanager
    def artifacts(experiment):
        folder = Path("work") / experiment.name
        save_dataset(folder / "data/prepared.safetensors", tiny_dataset)
        yield folder

    monkeypatch.setattr(Experiment, "artifacts", artifacts)
    monkeypatch.setattr(subprocess, "run", stand_in)
    return stand_in


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
    command.main()


def results(name: str = "small") -> dict:
    return json.loads(Path(f"recipes/results/{name}.json").read_text())


def test_a_recipe_runs_all_stages_by_its_params_and_stores_metrics_and_budgets(dvc, monkeypatch):
    run(monkeypatch, "small")
    assert dvc.runs["recipe-small"] == (dvc.params, NO_FILES, [])
    stored = results()
    assert list(stored) == ["params", "metrics", "latency", "budget", "control"]
    assert stored["params"] == dvc.params
    assert stored["metrics"]["optimized"]["accuracy"] == pytest.approx(0.91)
    assert stored["budget"] == {
        "steps_per_epoch": 3,  # of 300 images
        "original_epochs": 2,
        "original_weights": None,
        "original_teacher": None,
        "averaging_epochs": 0,
        "fine_tuning_epochs": 4,
        "fine_tuning_teacher": "its original",
    }
    assert Path("recipes/results/small.png").read_bytes()[1:4] == b"PNG"


def test_the_control_is_the_recipe_without_compression_compared_image_by_image(dvc, monkeypatch):
    run(monkeypatch, "small")
    params, _, stages = dvc.runs["control-small"]
    assert stages == ["evaluate"]
    differing = {key for key, value in flatten(params, params).items() if value != flatten(dvc.params, params).get(key)}
    assert differing <= {f"prune.{key}" for key in PruneParams.model_fields} | {"quantize.method"}
    assert params["prune"] | {"epochs": 4, "lr": dvc.params["prune"]["lr"], "distill": True} == params["prune"]
    control = results()["control"]
    assert control["metrics"]["accuracy"] == pytest.approx(0.94)
    assert control["optimized"] == {"gained": 0, "lost": 3, "mcnemar_p": 0.25}


def test_the_files_that_a_recipe_names_are_fingerprinted_for_the_experiment_its_control_and_its_seeds(dvc, monkeypatch):
    Path("weights.pth").write_text("weights")
    dvc.params["train"]["weights"] = "weights.pth"
    write_json(Path("recipes/small.yaml"), dvc.params)
    run(monkeypatch, "small")
    run(monkeypatch, "small", "--seeds", "2")
    prints = [prints for _, prints, _ in dvc.runs.values()]
    assert len(prints) == 4
    assert all(each["weights"].startswith("sha256-") and each == prints[0] for each in prints)
    assert results()["budget"]["original_weights"] == "weights.pth"


def test_equal_budgets_need_no_control_and_what_compresses_nothing_is_not_timed(dvc, monkeypatch):
    run(monkeypatch, "whole")
    assert list(dvc.runs) == ["recipe-whole"]
    assert dvc.timed == []
    assert list(results("whole")) == ["params", "metrics", "budget"]
    with pytest.raises(InputError, match="compresses nothing"):
        run(monkeypatch, "whole", "--latency")


def test_latencies_are_of_one_thread_and_of_two_with_the_date(dvc, monkeypatch):
    run(monkeypatch, "small")
    assert dvc.timed == [dvc.params | {"threads": threads} for threads in (1, 2)]
    stored = results()["latency"]
    assert list(stored) == ["date", "threads_1", "threads_2"]
    assert len(stored["date"].split("-")) == 3
    assert [stored[f"threads_{threads}"]["optimized"]["threads"] for threads in (1, 2)] == [1, 2]


def test_latencies_are_measured_anew_without_running_anything(dvc, monkeypatch):
    run(monkeypatch, "small")
    before = results()
    before["latency"]["date"] = "2001-01-01"
    write_json(Path("recipes/results/small.json"), before)
    dvc.runs.clear()
    run(monkeypatch, "small", "--latency")
    assert dvc.runs == {}
    assert results()["latency"].pop("date") != "2001-01-01"
    assert {key: value for key, value in results().items() if key != "latency"} == {
        key: value for key, value in before.items() if key != "latency"
    }


@pytest.mark.parametrize("option", [["--latency"], ["--seeds", "2"]])
def test_what_needs_a_run_of_these_params_says_so(dvc, monkeypatch, option):
    message = "recipes/results/small.json: holds no results of these params: make recipe NAME=small"
    with pytest.raises(InputError, match=message):
        run(monkeypatch, "small", *option)
    run(monkeypatch, "small")
    dvc.params["prune"]["epochs"] += 1
    write_json(Path("recipes/small.yaml"), dvc.params)
    dvc.runs.clear()
    with pytest.raises(InputError, match=message):
        run(monkeypatch, "small", *option)
    assert dvc.runs == {}


def test_latencies_of_an_experiment_that_is_gone_or_another_one_are_refused(dvc, monkeypatch):
    run(monkeypatch, "small")
    dvc.better = 1
    Experiment("recipe-small").run(dvc.params, NO_FILES)
    with pytest.raises(InputError, match="is not of the experiment recipe-small"):
        run(monkeypatch, "small", "--latency")
    subprocess.run(["dvc", "exp", "remove", "-q", "recipe-small"], check=True)
    with pytest.raises(InputError, match="recipe-small: this repository has no experiment of that name"):
        run(monkeypatch, "small", "--latency")


def test_a_benchmark_or_an_experiment_that_fails_is_one_line(dvc, monkeypatch):
    run(monkeypatch, "small")
    dvc.code = 1
    for option in (["--latency"], []):
        with pytest.raises(InputError, match="failed, see above"):
            run(monkeypatch, "small", *option)


def test_a_second_run_keeps_what_is_of_the_same_models_and_drops_the_rest(dvc, monkeypatch):
    run(monkeypatch, "small")
    run(monkeypatch, "small", "--seeds", "2")
    run(monkeypatch, "small")
    assert "seeds" in results()
    dvc.better = 1
    run(monkeypatch, "small")
    assert "seeds" not in results()


def test_seeds_begin_with_the_recipes_own_and_run_up_to_evaluate(dvc, monkeypatch):
    run(monkeypatch, "small")
    dvc.runs.clear()
    run(monkeypatch, "small", "--seeds", "3")
    expected = {f"seed-{seed}-small": (dvc.params | {"seed": seed}, NO_FILES, ["evaluate"]) for seed in (3, 4, 5)}
    assert dvc.runs == expected
    stored = results()["seeds"]
    assert [run["seed"] for run in stored["runs"]] == [3, 4, 5]
    assert [run["original"] for run in stored["runs"]] == pytest.approx([0.94, 0.95, 0.96])
    assert stored["summary"]["optimized"]["worst_seed"] == 3
    assert stored["summary"]["difference"]["mean"] == pytest.approx(-0.03)


def test_seeds_of_other_code_than_that_of_the_results_are_refused_after_the_first(dvc, monkeypatch):
    run(monkeypatch, "small")
    dvc.runs.clear()
    dvc.better = 1
    with pytest.raises(InputError, match="is of other code or data: make recipe NAME=small"):
        run(monkeypatch, "small", "--seeds", "3")
    assert list(dvc.runs) == ["seed-3-small"]


def test_a_single_seed_has_no_spread(dvc, monkeypatch):
    run(monkeypatch, "small")
    with pytest.raises(InputError, match="N = 1: must be at least 2"):
        run(monkeypatch, "small", "--seeds", "1")


def test_the_summary_of_seeds_is_that_of_numpy_and_scipy():
    accuracies = np.array([[0.95, 0.94], [0.97, 0.94], [0.93, 0.95], [0.96, 0.92]])
    differences = np.round(1000 * (accuracies[:, 1] - accuracies[:, 0])).astype(int)
    rows = [
        {"seed": seed, "original": a, "optimized": b, "images": 1000, "gained": max(0, d), "lost": max(0, -d)}
        for seed, ((a, b), d) in enumerate(zip(accuracies.tolist(), differences.tolist(), strict=True))
    ]
    summary = seeds.summarize(rows)
    for model, column in (("original", 0), ("optimized", 1)):
        assert summary[model]["mean"] == pytest.approx(accuracies[:, column].mean())
        assert summary[model]["sd"] == pytest.approx(accuracies[:, column].std(ddof=1))
        assert summary[model]["worst"] == accuracies[:, column].min()
        assert summary[model]["worst_seed"] == accuracies[:, column].argmin()
    assert summary["difference"]["mean"] == pytest.approx(differences.mean() / 1000)
    assert summary["difference"]["sd"] == pytest.approx(differences.std(ddof=1) / 1000)
    assert summary["difference"]["p"] == pytest.approx(ttest_rel(accuracies[:, 1], accuracies[:, 0]).pvalue)


def test_the_compact_files_of_seeds_are_summarized_by_accuracy_and_by_bytes():
    rows = []
    for seed, (accuracy, size) in enumerate([(0.95, 4_000), (0.93, 4_300), (0.97, 4_100)]):
        own = {
            model: {"accuracy": 0.9, "images": 10, "gained": 0, "lost": 0, "mcnemar_p": 1.0} for model in seeds.MODELS
        }
        own["compact"] = {"accuracy": accuracy, "size_bytes": size}
        rows.append(seeds.describe_run(seed, own))
    found = seeds.summarize(rows)["compact"]
    assert found.pop("sd") == pytest.approx(0.02)
    assert found.pop("mean") == pytest.approx(0.95)
    assert found.pop("bytes") == pytest.approx(12_400 / 3)
    assert found == {"worst": 0.93, "worst_seed": 1, "best": 0.97, "most": 4_300}


def test_equal_differences_are_certain():
    assert [seeds.paired_p(differences) for differences in ([0, 0, 0], [-2, -2, -2])] == [1.0, 0.0]


def test_images_that_only_one_model_gets_right_are_counted_by_direction():
    before, after = [True, True, False, False, True], [True, False, True, True, True]
    assert compare(before, after) == (2, 1)
    assert compare(after, before) == (1, 2)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_control_has_valid_params_that_prune_no_weight_and_quantize_nothing(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = read_yaml(path)
    control = control_params(params, {"fine_tuning_epochs": 7})
    write_json(Path("params.yaml"), control)
    check.read_params()
    assert control["prune"]["epochs"] == 7
    assert round(control["prune"]["amount"] * 100_000_000) == 0
    assert control["quantize"]["method"] == "none"
    assert {key for key in params if control[key] != params[key]} <= {"prune", "quantize"}


def test_the_rate_of_a_control_is_that_of_the_fine_tuning_which_it_repeats():
    params = read_yaml(ROOT / "recipes/mnist-structured.yaml")
    assert control_params(params, {"fine_tuning_epochs": 1})["prune"]["lr"] == params["prune"]["lr"] == 0.008
    params["prune"]["amount"], params["quantize"]["method"] = 0.0, "qat"
    assert control_params(params, {"fine_tuning_epochs": 1})["prune"]["lr"] == params["quantize"]["lr"] == 0.0001


def test_pruning_for_a_control_is_fine_tuning_and_nothing_else(tiny_dataset):
    params = read_yaml(ROOT / "recipes/lenet300-mnist.yaml")
    section = PruneParams(**control_params(params, {"fine_tuning_epochs": 2})["prune"])
    session, model = Session(tiny_dataset, seed=0), new("lenet300")
    fine_tune = FineTune(session, train_params(), section.lr, section.epochs, teacher=None)
    result = Pruner(ModelFile(model, "lenet300", {}), section, session, fine_tune).run()
    assert sum(row["pruned"] for row in result.sparsity) == 0
    assert len(result.history.rows) == 2
    list(FineTune(Session(tiny_dataset, seed=0), train_params(), section.lr, 2, None)(model, 1, lambda done: None))
    assert not different(state(model), state(result.model_file.model))


def test_the_newest_experiment_of_a_name_is_read_by_the_format_of_the_file(dvc, monkeypatch):
    experiment = Experiment("recipe-small")
    experiment.run(dvc.params, NO_FILES)
    git("commit", "--quiet", "--allow-empty", "-m", "another commit to be based on")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2035-01-01T00:00:00Z")
    experiment.run(dvc.params | {"seed": 8}, NO_FILES)
    assert len(git("for-each-ref", "refs/exps").splitlines()) == 2
    assert experiment.read("params.yaml")["seed"] == 8
    assert experiment.read_scores()["original"]["accuracy"] == 0.99
    assert experiment.read("dvc.lock")["stages"]["train"]["outs"][0]["md5"] == "abc"
    assert experiment.read("plots/predictions.csv")[0] == {"actual": "1", "predicted": "0"}
    with pytest.raises(InputError, match=r"recipe-small: has no nothing\.csv"):
        experiment.read("nothing.csv")


def test_overrides_are_flat_keys_and_values_that_dvc_reads(tmp_path):
    workspace, wanted = {"a": {"b": 1, "c": 0.5}, "d": 1}, {"a": {"b": 2, "c": {"conv1": 0.5, "fc": 1e-12}}, "d": None}
    changes = {key: override(value) for key, value in flatten(wanted, workspace).items()}
    assert list(changes) == ["a.b", "a.c", "d"]
    path = tmp_path / "params.yaml"
    write_json(path, workspace)
    apply_overrides(path, [f"{key}={value}" for key, value in changes.items()])
    assert read_yaml(path) == YAML(typ="safe").load(path) == wanted


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "recipes/nothing.yaml: no such recipe; known are small, whole"),
        ("", "recipes/.yaml: no such recipe"),
        ("../params", "recipe '../params': must be the name of a file in recipes/; known are small, whole"),
        ("results/small", "recipe 'results/small': must be the name of a file in recipes/; known are small, whole"),
    ],
)
def test_an_unknown_recipe_is_refused_with_the_known_ones(dvc, monkeypatch, name, message):
    with pytest.raises(InputError, match=message):
        run(monkeypatch, *filter(None, [name]))


def test_keys_that_differ_from_those_of_params_yaml_are_named(dvc, monkeypatch):
    del dvc.params["prune"]["rounds"]
    write_json(Path("recipes/small.yaml"), dvc.params | {"new": 1})
    with pytest.raises(InputError, match=r"small.yaml: must have the keys .*not in both: new, prune.rounds"):
        run(monkeypatch, "small")


def test_a_plain_folder_is_refused(dvc, monkeypatch):
    Path(".git").rename("elsewhere")
    with pytest.raises(InputError, match="need a git clone; this is a plain folder"):
        run(monkeypatch, "small")


@pytest.mark.slow
def test_a_real_recipe_is_run_timed_and_repeated_by_seeds_without_training_anything_twice(tmp_path):
    project = copy_project(tmp_path / "project")
    for path in (project.path / "recipes").glob("*.yaml"):
        path.unlink()
    params = read_yaml(project.path / "params.yaml")
    params["train"] |= {"network": "convnet", "epochs": 2}
    params["swa"]["start"] = None
    params["prune"] |= {"amount": 0.5, "epochs": 1}
    params["sensitivity"]["amount"] = None
    params["benchmark"] |= {"rounds": 12, "batch_sizes": [1]}
    write_json(project.path / "recipes/small.yaml", params)
    commit_all(project)
    tool = (sys.executable, "-m", "tools.recipe", "small")
    trained = "exec python -m stages.train"
    assert project.run(*tool).count(trained) == 1, "the control begins with the same original"
    path = project.path / "recipes/results/small.json"
    stored = json.loads(path.read_text())
    assert list(stored) == ["params", "metrics", "latency", "training", "budget", "control"]
    assert (stored["budget"]["original_epochs"], stored["budget"]["fine_tuning_epochs"]) == (2, 1)
    assert stored["control"]["metrics"]["nonzero_parameters"] > stored["metrics"]["optimized"]["nonzero_parameters"]
    for threads in (1, 2):
        optimized = stored["latency"][f"threads_{threads}"]["optimized"]
        assert optimized["threads"] == threads
        assert optimized["batch_1"]["against_exported"]["speedup"] > 0
    assert trained not in project.run(*tool, "--latency")
    assert project.run(*tool, "--seeds", "2").count(trained) == 1, "the recipe's own seed is in the cache"
    seeds = json.loads(path.read_text())["seeds"]
    assert [run["seed"] for run in seeds["runs"]] == [0, 1]
    assert seeds["runs"][0]["optimized"] == stored["metrics"]["optimized"]["accuracy"]
    assert trained not in project.run(*tool)
    assert json.loads(path.read_text())["seeds"] == seeds
