"""One trial: a candidate run as a DVC experiment, its file scored on validation, weighed and timed by the table."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightweight.core.errors import InputError
from lightweight.data.dataset import Dataset
from lightweight.data.dataset_file import load_dataset
from lightweight.evaluation.statistics import mcnemar_p, wilson_interval
from lightweight.networks.model_file import load_model
from lightweight.networks.validation import limit_batch
from lightweight.onnx.logits import onnx_logits, torch_logits
from lightweight.onnx.session import load_inference_session
from tools.budget.candidate import Candidate, Objective, apply
from tools.budget.layer_times import LayerTimes
from tools.recipe.experiment import Experiment

OPTIMIZED, ORIGINAL = "models/optimized.onnx", "models/original.safetensors"
DATA = ("data/prepared.safetensors", "data/prepared")


class TrialFailed(Exception):
    """A trial that gave no file; the experiment has said why."""


@dataclass(frozen=True)
class Trial:
    """Hold what a candidate gave on validation, where `drop` is against the original, and what its file costs."""

    candidate: Candidate
    accuracy: float
    low: float  # 95 % Wilson interval
    high: float
    drop: float
    mcnemar_p: float
    size_bytes: int
    latency_ms: float | None  # of its layers by the table; None without a table

    def cost(self, objective: Objective) -> float:
        """Return what is to become small."""
        return self.size_bytes if objective == "bytes" or self.latency_ms is None else self.latency_ms


@dataclass(frozen=True)
class Reference:
    """Hold the data set, and for each of its validation images whether the original gets it right (N,)."""

    dataset: Dataset
    right: np.ndarray
    batch_size: int


@contextmanager
def open_reference(params: dict[str, Any], fingerprints: dict[str, str]) -> Iterator[Reference]:
    """Train the original, or restore it from DVC's cache, and score it on validation; the data stays until the end."""
    experiment = Experiment("budget-original")
    experiment.run(params, fingerprints, "train")
    with experiment.artifacts((*DATA, ORIGINAL)) as folder:
        dataset = load_dataset(folder / DATA[0])
        batch_size = limit_batch(params["evaluate"]["batch_size"], dataset)
        model = load_model(folder / ORIGINAL, dataset).model
        logits = torch_logits(model, dataset, dataset.val, batch_size)
        yield Reference(dataset, logits.argmax(1) == dataset.val.labels.numpy(), batch_size)


@dataclass(frozen=True)
class Laboratory:
    """Run candidates with the params of the workspace."""

    params: dict[str, Any]
    fingerprints: dict[str, str]
    objective: Objective
    times: LayerTimes | None
    reference: Reference

    def run(self, candidate: Candidate) -> Trial:
        """Run the pipeline up to the file of a candidate, or restore it from DVC's cache, and score the file.

        Raises TrialFailed when the experiment fails, as where the file differs too much from its model.
        """
        experiment = Experiment(candidate.name)
        changed = apply(self.params, candidate.changes(self.params, self.objective))
        try:
            experiment.run(changed, self.fingerprints, "quantize")
        except InputError as error:
            raise TrialFailed(str(error)) from None
        with experiment.artifacts((OPTIMIZED,)) as folder:
            content = (folder / OPTIMIZED).read_bytes()
            session = load_inference_session(folder / OPTIMIZED, self.params["threads"])
        val = self.reference.dataset.val
        right = onnx_logits(session, val, self.reference.batch_size).argmax(1) == val.labels.numpy()
        before = self.reference.right
        low, high = wilson_interval(int(right.sum()), len(right))
        return Trial(
            candidate=candidate,
            accuracy=float(right.mean()),
            low=low,
            high=high,
            drop=float(before.mean() - right.mean()),
            mcnemar_p=mcnemar_p(int((right & ~before).sum()), int((~right & before).sum())),
            size_bytes=len(content),
            latency_ms=None if self.times is None else self.times.estimate(content),
        )
