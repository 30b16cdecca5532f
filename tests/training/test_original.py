"""Snapshots lie in the order of their epochs, in a folder that is never empty."""

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.checkpointing.session import Session
from lightweight.networks.model_file import ModelFile
from lightweight.training.original import snapshot_path, train_original
from tests.examples import different, new, state, train_params


def test_snapshots_are_sorted_by_name_as_by_epoch(tmp_path):
    names = [snapshot_path(tmp_path, epoch) for epoch in (2, 10, 9999)]
    assert names == sorted(names)
    assert names[0] == tmp_path / "0002.safetensors"


def test_without_an_epoch_the_weights_stay_and_dvc_finds_no_empty_folder(tiny_dataset, tmp_path):
    model, params = new("convnet"), train_params(epochs=0, weights="some.pth")
    before, session = state(model), Session(tiny_dataset, 0, checkpointer=Checkpointer(tmp_path / "run"))
    result = train_original(ModelFile(model, "convnet", {}), session, params, None, tmp_path / "snapshots")
    assert not different(before, result.model_file.model.state_dict())
    assert [file.read_text() for file in (tmp_path / "snapshots").iterdir()] == ["no epoch was trained\n"]
