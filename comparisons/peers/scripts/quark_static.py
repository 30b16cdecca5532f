"""Quantize by Quark: uint8 activations by percentile, int8 weights by channel, biases corrected."""

import sys
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
from onnxruntime.quantization import CalibrationDataReader
from quark.onnx import ModelQuantizer
from quark.onnx.quantization import BiasCorrectionConfig, QConfig
from quark.onnx.quantization.config.spec import Int8Spec, QLayerConfig, QuantGranularity, UInt8Spec

given, result = Path(sys.argv[1]), Path(sys.argv[2])


class Images(CalibrationDataReader):
    def __init__(self) -> None:
        self.images = np.load(given / "calibration.npz")["images"]
        self.rewind()

    def rewind(self) -> None:
        self.left = iter(self.images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.left, None)
        return None if image is None else {"input": image[None]}


layers = QLayerConfig(activation=UInt8Spec(), weight=Int8Spec(quant_granularity=QuantGranularity.Channel))

quantizer = ModelQuantizer(QConfig(layers, algo_config=[BiasCorrectionConfig()]))
quantizer.quantize_model(str(given / "original.onnx"), str(result / "compressed.onnx"), Images())
