"""Calibration: ranges of activations from a balanced part of the training images.

`minmax` takes the extremes of the activations. `entropy` cuts the range where the quantized histogram diverges least
from the whole one (Migacz 2017, TensorRT), `percentile` where a share of the values is left out (Wu et al. 2020).
"""

import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from torch import Tensor

from lightweight.data.dataset import Dataset
from lightweight.onnx.logits import pixels
from lightweight.quantization.params import Calibration

COLUMNS = ["index", "class"]
CALIBRATION_METHODS: dict[Calibration, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
MAX_IMAGES_PER_BATCH = 64
MAX_PIXELS_PER_BATCH = 2**18  # the activations of a batch are in memory together: 64 images of 64 x 64 pixels
HISTOGRAM_BINS = 2048  # with ORT's 128 bins for 128 levels, there is nothing that entropy could cut off


def describe_images(dataset: Dataset, indices: Tensor) -> list[dict[str, int | str]]:
    """List training images, of indices (N,), as rows of their index and class."""
    pairs = zip(indices.tolist(), dataset.train.labels[indices].tolist(), strict=True)
    return [{"index": index, "class": dataset.classes[label]} for index, label in pairs]


def write_ranges(model: Path, images: Tensor, method: Calibration, percentile: float, path: Path) -> None:
    """Run the ONNX file on images uint8 (N, C, H, W) and store the ranges of its activations at `path`, for ORT."""
    operators = list({*QLinearOpsRegistry, *QDQRegistry})
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # the calibrator reports every step
        calibrator = create_calibrator(
            model,
            operators,
            augmented_model_path=Path(folder) / "augmented.onnx",
            calibrate_method=CALIBRATION_METHODS[method],
            extra_options={"percentile": percentile, "num_bins": HISTOGRAM_BINS} if method != "minmax" else {},
        )
        for batch in split_pixels(images):
            calibrator.collect_data(_BatchReader(batch))
        save_tensors_data(calibrator.compute_data(), path)


def split_pixels(images: Tensor) -> Iterator[np.ndarray]:
    """Yield images uint8 (N, C, H, W) as float32 pixels, in batches whose activations fit into memory."""
    pixels_per_image = images[0, 0].numel()
    for batch in images.split(max(1, min(MAX_IMAGES_PER_BATCH, MAX_PIXELS_PER_BATCH // pixels_per_image))):
        yield pixels(batch)


class _BatchReader(CalibrationDataReader):
    """Feed one batch of float32 images (N, C, H, W) to ONNX Runtime's calibrator."""

    def __init__(self, batch: np.ndarray) -> None:
        self.batches = iter([batch])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the inputs of the batch once, then None."""
        batch = next(self.batches, None)
        return None if batch is None else {"input": batch}
