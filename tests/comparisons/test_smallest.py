"""The smallest files beside published points: every point has its source, and ours come from the seeds of recipes."""

import re
import tomllib

import pytest

from comparisons import smallest
from comparisons.smallest import MARKERS, TITLES, describe, list_ours, list_points, make_point
from lightweight.core.files import read_json, write_json
from tests.contract import ROOT

SUMMARY = {"mean": 0.9951, "sd": 0.0004, "worst": 0.9946, "best": 0.9957, "bytes": 4_012.4, "most": 4_090}


def test_every_published_point_says_what_its_bytes_are_of_and_where_it_stands():
    points = tomllib.loads((ROOT / "comparisons/smallest.toml").read_text())["point"]
    assert {point["network"] for point in points} == set(TITLES)
    assert {point["size"] for point in points} < set(MARKERS)
    assert all(point["source"] for point in points)
    bitnet = [point for point in points if point["error"] <= 0.5]
    assert min(point["bytes"] for point in bitnet) == 11_264, "the smallest published at 99.5 % and more"


def test_our_points_are_means_over_seeds_with_the_best_and_the_worst(tmp_path, monkeypatch):
    monkeypatch.setattr(smallest, "RESULTS", tmp_path)
    write_json(tmp_path / "tiny-compact.json", {"seeds": {"runs": [{}] * 5, "summary": {"compact": SUMMARY}}})
    write_json(tmp_path / "lenet5-compact.json", {"metrics": {}})
    write_json(tmp_path / "resnet20-compact.json", {"seeds": {"runs": [{}] * 5, "summary": {"compact": SUMMARY}}})
    (point,) = list_ours()
    assert (point.network, point.bytes, point.size, point.source) == ("any", 4_012.4, "whole file", "5 seeds")
    assert (point.best, point.error, point.worst) == pytest.approx((0.43, 0.49, 0.54))
    table = describe([point])
    assert "| Lightweight, tiny-compact | 4,012 |" in " ".join(table.split())
    assert "0.49 [0.43, 0.54]" in table


def test_the_table_is_generated_from_the_points(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert smallest.TABLE.read_text() == describe(list_points())


def test_points_stand_by_their_bytes():
    small, large = (make_point(name, "any", SUMMARY | {"bytes": size}, 5) for name, size in (("b", 1e3), ("a", 2e3)))
    assert describe([large, small]).index("Lightweight, b") < describe([large, small]).index("Lightweight, a")


def test_the_readme_says_what_the_seeds_gave():
    found = read_json(ROOT / "recipes/results/tiny-compact.json")["seeds"]
    compact = found["summary"]["compact"]
    mean, deviation, worst = (100 * compact[key] for key in ("mean", "sd", "worst"))
    spread = f"{mean:.2f} ± {deviation:.2f} % ({len(found['runs'])} seeds, the worst {worst:.2f} %)"
    assert f"{compact['bytes']:,.0f} bytes at {spread}" in (ROOT / "README.md").read_text()


def test_the_readme_says_what_the_c_code_takes_of_flash():
    table = (ROOT / "comparisons/results/microcontroller.md").read_text()
    flash = [
        int(found.replace(",", ""))
        for found in re.findall(r"^\| (?:Arm|RISC-V)[^|]+\| +([\d,]+) \|", table, re.MULTILINE)
    ]
    assert len(flash) == 4
    assert (
        f"it takes {min(flash) / 1000:.1f} to {max(flash) / 1000:.1f} kB of flash" in (ROOT / "README.md").read_text()
    )


def test_the_smallest_files_are_as_accurate_and_as_small_as_promised():
    compact = read_json(ROOT / "recipes/results/tiny-compact.json")["seeds"]["summary"]["compact"]
    assert compact["mean"] >= 0.995
    assert compact["most"] <= 6_144
