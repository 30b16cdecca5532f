"""The page in a real browser: nothing fails, every figure is drawn, no text is cut, everybody can read and use it."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lightweight.core.files import write_csv
from lightweight.page.experiments import Experiment
from lightweight.page.page import Report, write_page
from tests.browser.chromium import Chromium
from tests.browser.conftest import violations
from tests.contract import ROOT
from tests.examples import made_up_latency, made_up_metrics

SIZES = {"desktop": (1280, 900), "tablet": (800, 1000), "phone": (360, 740)}
LONG = "blocks.11.attention.in_projection_of_query_and_key"
FIGURES = 2 + 2 + 2 + 2  # fronts, confusions, curves, strips

# Texts of drawings that stick out of them, and elements that are wider than what they stand in, unless that scrolls.
CUT = """(() => {
  const found = [];
  for (const svg of document.querySelectorAll('svg')) {
    const box = svg.viewBox.baseVal;
    for (const text of svg.querySelectorAll('text')) {
      const own = text.getBBox();
      const outside = own.x < -2 || own.y < -2
        || own.x + own.width > box.width + 2 || own.y + own.height > box.height + 2;
      if (outside && !text.hasAttribute('transform')) found.push('svg: ' + text.textContent);
    }
  }
  for (const element of document.querySelectorAll('body *:not(svg *):not(.skip):not(.said)')) {
    const scrolls = element.closest('.wide, pre');
    if (!scrolls && element.getBoundingClientRect().right > innerWidth + 1) found.push(element.outerHTML.slice(0, 80));
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push('the page scrolls sideways');
  return found;
})()"""
# Pairs of texts in a drawing that lie on one another.
OVERLAPS = """[...document.querySelectorAll('svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text:not([transform])')].map(text => [text.textContent, text.getBBox()]);
  return texts.flatMap(([a, p], i) => texts.slice(i + 1).filter(([b, q]) =>
    Math.min(p.x + p.width, q.x + q.width) - Math.max(p.x, q.x) > 1.5 &&
    Math.min(p.y + p.height, q.y + q.height) - Math.max(p.y, q.y) > 4).map(([b]) => a + ' on ' + b));
})"""


def fill(plots: Path) -> None:
    """Write tables as long names and extreme numbers make them."""
    random = np.random.default_rng(0)
    names = [LONG, "conv1", "fc"]
    coverage = [
        {"name": name, "weights": 10**9, "nonzero": 5, "bits": 8, "macs": 10**10, "int8": False,
         "reason": "the method converts linear layers only", "moved": 0, "step": 1.0}
        for name in names
    ]  # fmt: skip
    layers = [
        {"layer": name, "shape": "4096x1024x3x3", "macs": 10**11, "shape_after": "512x1024x3x3", "macs_after": 10**10}
        for name in names
    ]
    sensitivity = [{"layer": name, "drop": 0.3 / n} for n, name in enumerate(names, start=1)]
    predictions = [
        {"actual": str(n % 10), "predicted": str((n + (n % 17 == 0)) % 10), "confidence": 0.9,
         "original": str((n + (n % 23 == 0)) % 10), "original_confidence": 0.8}
        for n in range(400)
    ]  # fmt: skip
    epochs = [{"epoch": n, "val_loss": 1 / n, "val_accuracy": 1 - 0.5 / n} for n in range(1, 21)]
    turns = [
        {"model": name, "batch": size, "round": n, "milliseconds": 1.5 * 1.1 ** random.normal()}
        for name in made_up_latency() for size in (1, 64) for n in range(240)
    ]  # fmt: skip
    sparsity = [{"layer": LONG, "weights": 8, "pruned": 4, "sparsity": 0.5, "spared": ""}]
    tables = {"coverage": coverage, "layers": layers, "sensitivity": sensitivity, "predictions": predictions}
    tables |= {"train": epochs, "swa": epochs[10:], "prune": epochs, "turns": turns, "sparsity": sparsity}
    for name, rows in tables.items():
        write_csv(plots / f"{name}.csv", rows[0], rows)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    plots = tmp_path_factory.mktemp("plots")
    fill(plots)
    latency = made_up_latency("A processor of a very long name @ 2.45GHz with more words than anybody needs")
    ratio = {"speedup": 3.0, "speedup_low": 2.5, "speedup_high": 3.5, "precise": False, "verdict": "faster"}
    own = latency["optimized"]
    latency["optimized"] = own | {"batch_1": own["batch_1"] | {"against_exported": ratio}}
    params = {"train.network": "torchvision/efficientnet_b0", "prepare.dataset": "fashion_mnist", "prune.amount": 0.5}
    known = made_up_metrics()["pruned"]
    experiments = [
        Experiment(f"amount-{n}", known | {"size_bytes": 10_000 * 3**n, "accuracy": 0.935 + 0.002 * n},
                   {"batch_1": {"latency_ms": 0.3 * n}}, params | {"prune.amount": n / 10})
        for n in range(1, 7)
    ]  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (400, 1, 28, 28), dtype=np.uint8)
    record = {"models/optimized.onnx": {"commit": "0123456789" * 4, "md5": "ab" * 16, "cpu": "A CPU", "threads": 1,
              "platform": "Linux", "python": "3.11", "versions": {"torch": "2.13.0"}}}  # fmt: skip
    report = Report(
        made_up_metrics(), latency, plots, params, record, experiments, lambda numbers: images[numbers], ["A note."]
    )
    write_page(plots / "report.html", report)
    return plots / "report.html"


@pytest.fixture(params=SIZES)
def opened(request, browser, page) -> Iterator[Chromium]:
    browser.resize(*SIZES[request.param], mobile=request.param == "phone")
    browser.open(page.as_uri())
    yield browser
    browser.emulate()


def test_nothing_fails_and_nothing_is_asked_for_but_the_page(opened, page):
    assert opened.complaints() == []
    assert opened.requests() == [page.as_uri()]


def test_every_figure_is_drawn_and_no_text_is_cut_or_hidden_by_another(opened):
    sizes = opened.evaluate("[...document.querySelectorAll('svg')].map(s => [s.children.length, s.clientHeight])")
    assert len(sizes) == FIGURES
    assert all(parts > 10 and height > 100 for parts, height in sizes)
    assert opened.evaluate(CUT) == []
    assert opened.evaluate(OVERLAPS) == []
    assert opened.evaluate("[...document.images].every(image => image.naturalWidth > 0)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(browser, page, axe, scheme):
    browser.resize(1280, 900)
    browser.emulate(scheme=scheme)
    browser.open(page.as_uri())
    assert violations(browser, axe) == []
    browser.emulate()


def test_colours_follow_the_scheme(browser, page):
    grounds = []
    for scheme in ("light", "dark"):
        browser.emulate(scheme=scheme)
        browser.open(page.as_uri())
        grounds.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    browser.emulate()
    assert grounds == ["rgb(251, 251, 250)", "rgb(20, 23, 26)"]


def test_layers_are_sorted_by_numbers_and_turned_round(browser, page):
    browser.resize(1280, 900)
    browser.open(page.as_uri())
    code = "[...document.querySelectorAll('.sortable tbody tr')].map(row => row.cells[0].textContent)"
    assert browser.evaluate(code) == [LONG, "conv1", "fc"]
    click = "document.querySelectorAll('.sortable th button')[{}].click()"
    browser.evaluate(click.format(9))
    assert browser.evaluate(code) == ["fc", "conv1", LONG], "the least sensitive first"
    assert (
        browser.evaluate("document.querySelectorAll('.sortable thead th')[9].getAttribute('aria-sort')") == "ascending"
    )
    browser.evaluate(click.format(9))
    assert browser.evaluate(code) == [LONG, "conv1", "fc"]
    browser.evaluate(click.format(0))
    assert browser.evaluate(code) == [LONG, "conv1", "fc"], "names by letters"
    assert browser.evaluate("document.querySelectorAll('.sortable thead [aria-sort]').length") == 1


def test_a_click_and_the_keyboard_copy_the_command_of_an_experiment(browser, page):
    browser.resize(1280, 900)
    browser.open(page.as_uri())
    browser.evaluate("navigator.clipboard.writeText = async text => { window.copied = text; }")
    box = browser.evaluate(
        "(() => { const p = document.querySelector('[data-copy=\"dvc exp apply amount-3\"]');"
        " p.scrollIntoView({behavior: 'instant', block: 'center'});"
        " const b = p.querySelector('circle').getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        browser.mouse(kind, *box)
    browser.wait_for("window.copied === 'dvc exp apply amount-3'")
    assert "Copied: dvc exp apply amount-3" in browser.evaluate("document.getElementById('said').textContent")
    browser.evaluate("window.copied = ''; document.querySelector('[data-copy=\"dvc exp apply amount-2\"]').focus()")
    assert "prune.amount=0.2" in browser.evaluate("document.getElementById('said').textContent")
    browser.send("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13)
    browser.wait_for("window.copied === 'dvc exp apply amount-2'")


def test_it_opens_in_a_second(browser, page):
    browser.resize(1280, 900)
    browser.open(page.as_uri())
    spent = browser.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert 0 < spent < 1000
    assert page.stat().st_size < 1_000_000


def test_paper_has_everything_and_nothing_to_click(browser, page, tmp_path):
    browser.resize(794, 1123)
    browser.open(page.as_uri())
    browser.emulate("print")
    assert browser.evaluate(CUT) == []
    assert browser.evaluate("[...document.querySelectorAll('nav, button[data-copy]')].every(e => !e.offsetParent)")
    browser.emulate()
    browser.print_to_pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_the_committed_sources_name_no_network():
    for path in (ROOT / "lightweight/page/templates").iterdir():
        assert "//" not in re.sub(r"^\s*//.*|\s// .*", "", path.read_text(), flags=re.MULTILINE), path
