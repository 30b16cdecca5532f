"""Quantize as ONNX Runtime advises for x86 CPUs without VNNI: uint8 activations, weights in 7 bits by channel."""

import sys
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

given, result = Path(sys.argv[1]), Path(sys.argv[2])


class Images(CalibrationDataReader):
    def __init__(self) -> None:
        self.images = iter(np.load(given / "calibration.npz")["images"])

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {"input": image[None]}


quant_pre_process(given / "original.onnx", result / "preprocessed.onnx")
quantize_static(
    result / "preprocessed.onnx",
    result / "compressed.onnx",
    Images(),
    quant_format=QuantFormat.QDQ,
    per_channel=True,
    reduce_range=True,
    activation_type=QuantType.QUInt8,
    weight_type=QuantType.QInt8,
)
