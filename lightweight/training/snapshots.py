"""The weights after each epoch are files: to go on from, to choose the best of, and as many as are wanted."""

from dataclasses import replace
from pathlib import Path

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.networks.model_file import ModelFile, save_model
from lightweight.training.history import History


def snapshot(folder: Path, epoch: int) -> Path:
    """Where the weights after an epoch lie."""
    return folder / f"{epoch:04}.safetensors"


def keep_snapshot(checkpointer: Checkpointer, trained: ModelFile, history: History, newest: int, patience: int) -> None:
    """Write the weights after the newest row of the history, and drop those that are neither the best nor `newest`."""
    row = history.rows[-1]
    path = snapshot(checkpointer.folder, row.epoch)
    save_model(path, replace(trained, notes={"epoch": row.epoch, "lr": row.lr}))
    checkpointer.add_file(path)
    for epoch in history.obsolete(newest, patience):
        checkpointer.remove_file(snapshot(checkpointer.folder, epoch))
