"""Snapshots lie in the order of their epochs."""

from lightweight.training.original import snapshot_path


def test_snapshots_are_sorted_by_name_as_by_epoch(tmp_path):
    names = [snapshot_path(tmp_path, epoch) for epoch in (2, 10, 9999)]
    assert names == sorted(names)
    assert names[0] == tmp_path / "0002.safetensors"
