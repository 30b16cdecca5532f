"""The ranges of activations come from a balanced part of the training images, by their extremes or by less than all.

`entropy` cuts where the quantized histogram diverges least from the whole one (Migacz 2017, TensorRT), `percentile`
where a share of the values is left out (Wu et al. 2020).
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Literal

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default, and read once: while it is imported

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from torch import Tensor

from lightweight.dataset import Dataset, random_indices
from lightweight.onnx.session import pixels

Calibration = Literal["minmax", "entropy", "percentile"]
COLUMNS = ["index", "class"]
METHODS = {name: getattr(CalibrationMethod, name.title().replace("Minmax", "MinMax"))
           for name in ("minmax", "entropy", "percentile")}  # fmt: skip
PIXELS = 2**18  # of the images whose activations are in memory together: 64 of 64 x 64 pixels, or fewer larger ones
BINS = 2048  # of the histograms: with ORT's 128 of 128 levels, there is nothing that entropy could cut off


def balanced_sample(labels: Tensor, number: int, seed: int) -> Tensor:
    """Draw `number` random indices of `labels` (N,), in ascending order and with classes as equal as they can be."""
    order = random_indices(len(labels), len(labels), seed)
    shuffled, turn = labels.cpu()[order], torch.empty_like(order)
    for label in shuffled.unique():
        chosen = shuffled == label
        turn[chosen] = torch.arange(int(chosen.sum()))
    return order[turn.argsort(stable=True)][:number].sort().values


def describe_images(dataset: Dataset, chosen: Tensor) -> list[dict[str, int | str]]:
    """List chosen training images (N,) as rows of their index and class."""
    labels = dataset.train.labels[chosen].tolist()
    pairs = zip(chosen.tolist(), labels, strict=True)
    return [{"index": index, "class": dataset.classes[label]} for index, label in pairs]


def write_ranges(model: Path, images: Tensor, method: Calibration, percentile: float, path: Path) -> None:
    """Run the ONNX file on images uint8 (N, C, H, W) and store the ranges of its activations at `path`, for ORT."""
    kinds = list({*QLinearOpsRegistry, *QDQRegistry})
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # it reports every step
        calibrator = create_calibrator(
            model,
            kinds,
            augmented_model_path=Path(folder) / "augmented.onnx",
            calibrate_method=METHODS[method],
            extra_options={"percentile": percentile, "num_bins": BINS} if method != "minmax" else {},
        )
        for batch in images.split(max(1, min(64, PIXELS // images[0, 0].numel()))):
            calibrator.collect_data(_Reader([pixels(batch)]))
        save_tensors_data(calibrator.compute_data(), path)


class _Reader(CalibrationDataReader):
    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self.batches: Iterator[np.ndarray] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"input": batch}
