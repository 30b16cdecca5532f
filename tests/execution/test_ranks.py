"""Sums have one order: their bits do not depend on the number of processes."""

import struct

import pytest
import torch

from lightweight.execution import ranks
from lightweight.execution.agreement import broadcast
from lightweight.execution.ranks import map_shared, share
from lightweight.execution.tree_sum import tree_sum

TREE = """
import os, sys, torch
import torch.distributed as dist
from lightweight.execution import ranks
from lightweight.execution.agreement import broadcast
from lightweight.execution.tree_sum import FOLDER, tree_sum
number, size, folder, shared = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "True"
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
if shared:
    os.environ[FOLDER] = folder
dist.init_process_group("gloo", f"file://{folder}/store", rank=number, world_size=size)
vectors = torch.randn(8, 101, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(8)[:, None]
total = tree_sum(vectors[shard] for shard in ranks.share(8)).clone()
again = tree_sum(2 * vectors[shard] for shard in ranks.share(8))
rows = ranks.map_shared(lambda row: [row, 1 - row], 5, 2)
given = broadcast(b"of rank 0" if number == 0 else None), broadcast(None)
print(total.numpy().tobytes().hex(), torch.equal(again, 2 * total), rows.tolist(), *given,
      ranks.agree(True), ranks.agree(number != size - 1), ranks.largest(number))
"""


@pytest.mark.parametrize("shared", [True, False], ids=["memory", "messages"])
@pytest.mark.parametrize("size", [2, 4, pytest.param(8, marks=pytest.mark.slow)])
def test_a_tree_sum_has_the_same_bits_in_every_process_for_any_number_of_them(start_python, tmp_path, size, shared):
    vectors = torch.randn(8, 101, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(8)[:, None]
    expected = tree_sum(iter(vectors))
    pairs = vectors.view(4, 2, 101)
    fours = (pairs[:, 0] + pairs[:, 1]).view(2, 2, 101)
    halves = fours[:, 0] + fours[:, 1]
    assert torch.equal(expected, halves[0] + halves[1])
    assert not torch.equal(expected, vectors.sum(0)), "another order gives other bits"
    processes = [start_python(TREE, number, size, tmp_path, shared) for number in range(size)]
    outputs = {process.communicate(timeout=100)[0] for process in processes}
    rows = [[float(row), 1.0 - row] for row in range(5)]
    given = f"{expected.numpy().tobytes().hex()} True {rows} b'of rank 0' None True False {size - 1}\n"
    assert outputs == {given}


def test_one_process_computes_everything():
    assert list(share(5)) == [0, 1, 2, 3, 4]
    assert map_shared(lambda row: [row / 3], 4, 1).tolist() == [[row / 3] for row in range(4)]
    assert broadcast(b"x") == b"x"
    assert ranks.agree(True)
    assert not ranks.agree(False)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("total", [0, 1, 5, 64])
def test_shares_are_contiguous_and_nearly_equal(monkeypatch, size, total):
    monkeypatch.setattr(ranks, "world_size", lambda: size)
    parts = []
    for number in range(size):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        parts.append(list(share(total)))
    assert [number for part in parts for number in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_number_of_parts_that_is_no_power_of_two_is_an_error():
    with pytest.raises(AssertionError, match="power of two"):
        tree_sum(torch.ones(3, 2))


def test_rows_are_kept_in_float64():
    value = struct.unpack("d", b"\x01\x02\x03\x04\x05\x06\x07\x40")[0]
    assert map_shared(lambda row: [value], 1, 1).item() == value
