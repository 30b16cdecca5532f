"""Training of the original network, with a snapshot after each epoch: a model file of its weights.

SWA starts from a snapshot, and early stopping keeps the best one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.checkpointing.session import Session
from lightweight.core.files import write_text
from lightweight.data.dataset import Dataset
from lightweight.networks.model_file import ModelFile, load_model, new_model, save_model
from lightweight.training.history import Epoch, History
from lightweight.training.loop import train
from lightweight.training.optimizer import make_schedule
from lightweight.training.params import TrainingSettings, TrainParams
from lightweight.training.pretrained import load_weights


@dataclass(frozen=True)
class TrainingResult:
    """Hold the trained network, its history, and the epoch whose weights it has; None where no epoch was trained."""

    model_file: ModelFile
    history: History
    kept: Epoch | None

    def describe(self) -> str:
        """Describe which epoch was kept and its validation accuracy."""
        if self.kept is None:
            return "weights without training"
        return f"epoch {self.kept.epoch}  val accuracy {self.kept.val_accuracy:.2%}"


def new_original(params: TrainParams, dataset: Dataset, root: Path, log: Callable[[str], None]) -> ModelFile:
    """Build the network of section `train` on the device of the data, with the weights that `train.weights` names.

    Without such weights the network keeps its initial ones. Files are relative to `root`. Raises InputError when the
    network does not fit the data or the weights do not fit the network.
    """
    original = new_model(params.network, params.small_stem, dataset)
    if params.weights:
        new_classifier = params.epochs > 0
        kept = load_weights(original.model, params.network, params.weights, root, new_classifier=new_classifier)
        exception = f", except {', '.join(kept)}" if kept else ""
        log(f"train  weights of {params.weights}{exception}")
    original.model.to(dataset.mean.device)
    return original


def train_original(
    original: ModelFile, session: Session, params: TrainParams, teacher: nn.Module | None, snapshots: Path
) -> TrainingResult:
    """Train the original for `params.epochs`, or until early stopping, and write its snapshots to a folder.

    The result has the weights of the last epoch, or with `patience` those of the most accurate one on validation.
    """
    epochs = range(1, params.epochs + 1)
    schedule = partial(make_schedule, params.schedule, params, params.epochs)
    settings = TrainingSettings(params, params.lr, schedule, teacher)
    history = session.checkpointer.track("history", History())
    rows = train(original.model, session, settings, epochs)
    for _ in history.record(rows, params.patience):
        _write_snapshot(session.checkpointer, original, history, params)
        session.log(history.format_row(params.epochs))
    if not session.checkpointer.folder:  # in a process that writes nothing
        return TrainingResult(original, history, None)
    session.checkpointer.export_files(snapshots)
    if not history.rows:
        write_text(snapshots / "none.txt", "no epoch was trained\n")  # DVC warns of an empty folder
        return TrainingResult(replace(original, notes={}), history, None)
    kept = history.kept_epoch(params.patience)
    trained = load_model(snapshot_path(snapshots, kept.epoch))
    return TrainingResult(replace(trained, notes={}), history, kept)


def snapshot_path(folder: Path, epoch: int) -> Path:
    """Return the path of the snapshot of an epoch."""
    return folder / f"{epoch:04}.safetensors"


def _write_snapshot(checkpointer: Checkpointer, original: ModelFile, history: History, params: TrainParams) -> None:
    """Write the snapshot of the newest epoch, and remove the snapshots that are no longer needed."""
    if not checkpointer.folder:
        return
    row = history.rows[-1]
    path = snapshot_path(checkpointer.run_folder, row.epoch)
    save_model(path, replace(original, notes={"epoch": row.epoch, "lr": row.lr}))
    checkpointer.add_file(path)
    for epoch in history.obsolete_epochs(params.snapshots, params.patience):
        checkpointer.remove_file(snapshot_path(checkpointer.run_folder, epoch))
