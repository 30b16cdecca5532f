"""The ledger has a row of the integer-only network while the compact file is the one that it was made of."""

import json

import pytest

from lightweight.checkpointing.run_folder import checksum
from lightweight.reporting.ledger import ledger_text, make_ledger
from tests.examples import made_up_metrics
from tools.ledger import COMPACT, MICROCONTROLLER, read_integer_scores

OWN = {"accuracy": 0.91, "size_bytes": 4_718}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A workspace with a compact file, and the scores of the integers that were made of it."""
    monkeypatch.chdir(tmp_path)
    MICROCONTROLLER.parent.mkdir(parents=True)
    COMPACT.write_bytes(b"the smallest file")
    MICROCONTROLLER.write_text(json.dumps({"made_from": checksum(COMPACT), "scores": OWN}))
    return tmp_path


def test_the_integers_are_a_row_of_the_ledger(folder):
    table = make_ledger(made_up_metrics() | read_integer_scores(), {})
    assert list(table.index)[-1] == "integers"
    assert table.loc["integers", "difference"] == pytest.approx(0.91 - made_up_metrics()["original"]["accuracy"])
    assert table.loc["integers", "container_bytes"] is None, "their ideal size was not measured"
    assert "4,718" in ledger_text(table)


def test_integers_of_another_compact_file_are_not_shown(folder):
    COMPACT.write_bytes(b"another file")
    assert read_integer_scores() == {}
    COMPACT.unlink()
    assert read_integer_scores() == {}


def test_without_the_command_there_is_no_row(folder):
    MICROCONTROLLER.unlink()
    assert read_integer_scores() == {}
