"""The tables of recipes say what was trained, compare in the same runtime first, and name what is not faster."""

import pytest

from tests.examples import made_up_latency, made_up_metrics
from tools import readme
from tools.recipe.recipe import timings
from tools.recipe.tables import accuracy_row, describe_speedup, signed, speed_rows

PARAMS = {"threads": 1, "prune": {"amount": 0.5}, "quantize": {"method": "static"}}
OLD = {"params": PARAMS, "metrics": made_up_metrics(), "latency": made_up_latency(), "training": None}
BUDGET = {
    "steps_per_epoch": 422,
    "original_epochs": 6,
    "original_weights": None,
    "original_teacher": None,
    "averaging_epochs": 0,
    "fine_tuning_epochs": 30,
    "fine_tuning_teacher": "its original",
}


def speedup(value: float, verdict: str) -> dict:
    interval = {"speedup_low": 0.9 * value, "speedup_high": 1.1 * value}
    return {"latency_ms": 6.0 / value, "speedup": value, **interval, "verdict": verdict}


def latency(threads: int, against_exported: float, verdict: str) -> dict:
    models = {"original": speedup(1.0, "no difference"), "exported": speedup(3.0, "faster")}
    models |= {"optimized": speedup(6.0, "faster") | {"against_exported": speedup(against_exported, verdict)}}
    return {
        name: {"cpu": "A CPU", "threads": threads, "batch_1": batch, "batch_64": batch}
        for name, batch in models.items()
    }


TIMED = {"date": "2026-11-27", "threads_1": latency(1, 2.0, "faster"), "threads_2": latency(2, 0.5, "slower")}


def test_results_of_an_earlier_version_leave_cells_empty():
    row = accuracy_row(OLD)
    assert [row[name] for name in ("trained", "trained on top", "control", "seeds")] == ["", "", "", "one seed"]
    (speeds,) = speed_rows(OLD)
    assert speeds["threads"] == "1"
    assert speeds["against its export, batch 1"] == ""
    assert speeds["against PyTorch, batch 1"] == "2.00 [1.90, 2.10]"
    assert speeds["measured"] == "A CPU"


def test_speeds_are_against_the_export_first_a_row_for_each_number_of_threads():
    first, second = speed_rows(OLD | {"latency": TIMED})
    assert list(first) == [
        "threads",
        "against its export, batch 1",
        "against its export, batch 64",
        "against PyTorch, batch 1",
        "against PyTorch, batch 64",
        "measured",
    ]
    assert (first["threads"], second["threads"]) == ("1", "2")
    assert first["against its export, batch 64"] == "2.00 [1.80, 2.20]"
    assert second["against its export, batch 64"] == "0.50 [0.45, 0.55]: slower"
    assert second["against PyTorch, batch 64"] == "6.00 [5.40, 6.60]"
    assert second["measured"] == "2026-11-27, A CPU"


def test_what_is_not_measurably_faster_is_called_so():
    assert describe_speedup(speedup(1.05, "no difference")).endswith("]: no faster")
    assert describe_speedup(speedup(1.05, "faster")).endswith("]")


def test_a_ratio_that_was_not_measured_precisely_carries_a_warning():
    wide = speedup(421.0, "faster") | {"precise": False}
    assert describe_speedup(wide) == "421.00 [378.90, 463.10], not precise"
    assert describe_speedup(wide | {"precise": True}) == "421.00 [378.90, 463.10]"


@pytest.mark.parametrize("amount", [0.0, {"conv1": 0.0}])
def test_a_recipe_that_compresses_nothing_has_no_speeds(amount):
    nothing = {"params": {"prune": {"amount": amount}, "quantize": {"method": "none"}}, "latency": TIMED}
    assert list(speed_rows(OLD | nothing)) == []
    for something in ({"prune": {"amount": {"conv1": 0.5}}}, {"quantize": {"method": "fp16"}}):
        changed = nothing | {"params": nothing["params"] | something}
        assert len(list(speed_rows(OLD | changed))) == 2


def test_both_budgets_stand_in_the_row_with_epochs_steps_and_teacher():
    row = accuracy_row(OLD | {"budget": BUDGET})
    assert row["trained"] == "6 epochs, 2,532 steps"
    assert row["trained on top"] == "30 epochs, 12,660 steps, teacher: its original"


def test_given_weights_and_averaging_are_named_in_the_budgets():
    changes = {"original_epochs": 0, "original_weights": "data/raw/a.safetensors", "averaging_epochs": 5}
    row = accuracy_row(OLD | {"budget": BUDGET | changes | {"fine_tuning_epochs": 1, "fine_tuning_teacher": None}})
    assert row["trained"] == "from data/raw/a.safetensors, 0 epochs, 0 steps"
    assert row["trained on top"] == "5 epochs of averaging in place of the last and 1 epoch, 422 steps"
    none = accuracy_row(OLD | {"budget": BUDGET | {"fine_tuning_epochs": 0, "fine_tuning_teacher": None}})
    assert (none["trained on top"], none["control"]) == ("nothing", "")


def test_unequal_budgets_without_a_control_are_told():
    assert accuracy_row(OLD | {"budget": BUDGET})["control"] == "not run"


def test_the_control_stands_beside_with_the_difference_and_its_p_value():
    control = {
        "metrics": made_up_metrics()["original"],
        "optimized": {"gained": 9, "lost": 18, "mcnemar_p": 0.1221},
    }
    cell = accuracy_row(OLD | {"budget": BUDGET, "control": control})["control"]
    assert cell == "95.00% [92.00, 97.00], optimized -2.00 points, p = 0.12"


def test_mean_and_spread_stand_in_place_of_one_seed():
    seeds = {
        "runs": [{}] * 5,
        "summary": {
            "original": {"mean": 0.9951, "sd": 0.0004, "worst": 0.994, "worst_seed": 1},
            "optimized": {"mean": 0.9949, "sd": 0.0005, "worst": 0.9941, "worst_seed": 3},
            "difference": {"mean": -0.0002, "sd": 0.0003, "p": 0.2113},
        },
    }
    cell = accuracy_row(OLD | {"seeds": seeds})["seeds"]
    assert cell == "5 seeds: 99.51 ± 0.04 → 99.49 ± 0.05 %, -0.02 ± 0.03 points, p = 0.21, worst 99.41 %"


def test_the_smallest_file_stands_with_its_bytes_and_how_it_was_trained():
    section = {"method": "trained", "epochs": 30, "distill": True}
    one = OLD | {
        "params": PARAMS | {"compact": section},
        "metrics": made_up_metrics() | {"compact": made_up_metrics()["original"] | {"size_bytes": 4_076}},
    }
    cell = accuracy_row(one)["smallest file"]
    assert cell == "4,076 bytes, 95.00% [92.00, 97.00]; 30 epochs, teacher: its original"
    compact = {"mean": 0.99512, "sd": 0.0004, "worst": 0.9946, "best": 0.9957, "bytes": 4_012.4, "most": 4_090}
    both = {"mean": 0.9951, "sd": 0.0004, "worst": 0.994, "worst_seed": 1}
    summary = {
        "original": both,
        "optimized": both,
        "difference": {"mean": 0.0, "sd": 0.0, "p": 1.0},
        "compact": compact,
    }
    section |= {"method": "layerwise"}
    cell = accuracy_row(one | {"seeds": {"runs": [{}] * 5, "summary": summary}})["smallest file"]
    start = "4,012 bytes, at most 4,090: 99.51 ± 0.04 %, worst 99.46, best 99.57 %; "
    assert cell == start + "not trained, teacher: its original".partition(",")[0]
    assert accuracy_row(OLD)["smallest file"] == ""


def test_points_have_a_sign_but_for_none():
    assert [signed(points) for points in (0.125, -0.254, 0.001, -0.001)] == ["+0.12", "-0.25", "0.00", "0.00"]


def test_timings_are_found_by_threads_in_old_and_in_new_files():
    assert timings(OLD) == {1: OLD["latency"]}
    assert timings({"latency": TIMED}) == {1: TIMED["threads_1"], 2: TIMED["threads_2"]}
    assert timings({}) == timings({"latency": None}) == {}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Make recipes/published.toml of three recipes, of which one has results."""
    monkeypatch.setattr(readme, "PUBLISHED", tmp_path / "published.toml")
    (tmp_path / "published.toml").write_text("".join(f"[{name}]\nfigures = '7 %'\n" for name in "abc"))
    monkeypatch.setattr(readme, "read_results", lambda name: OLD | {"latency": TIMED} if name == "b" else {})


def test_a_recipe_without_results_has_a_row_of_published_figures_and_none_of_speeds(stored):
    accuracies, speeds = readme.generate("recipes").splitlines(), readme.generate("speeds").splitlines()
    assert [line.split("|")[1].strip() for line in accuracies[2:5]] == [f"[{name}]({name}.yaml)" for name in "abc"]
    assert {cell.strip() for cell in accuracies[2].split("|")[3:]} == {""}
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in speeds[2:] if line]
    assert cells == [["[b](b.yaml)", "1"], ["[b](b.yaml)", "2"]]
    assert "nan" not in "".join(accuracies + speeds)


def test_the_table_of_variants_is_timed_by_the_threads_of_the_recipe(tmp_path, monkeypatch):
    given = OLD | {"latency": TIMED, "params": PARAMS | {"threads": 2}}
    monkeypatch.setattr(readme, "read_json", lambda path: given)
    assert "Measured by `make recipe NAME=a` on A CPU, 2 threads, 2026-11-27." in readme.generate("recipe a")
    monkeypatch.setattr(readme, "read_json", lambda path: {key: given[key] for key in ("params", "metrics")})
    assert readme.generate("recipe a").endswith("Measured by `make recipe NAME=a`.\n")
