"""Quantize the ONNX file by NNCF: asymmetric activations, biases corrected in order, weights in half of the range."""

import sys
from pathlib import Path

import nncf
import numpy as np
import onnx
from nncf.quantization.advanced_parameters import OverflowFix

given, result = Path(sys.argv[1]), Path(sys.argv[2])
images = np.load(given / "calibration.npz")["images"]
quantized = nncf.quantize(
    onnx.load(given / "original.onnx"),
    nncf.Dataset(list(images), lambda image: {"input": image[None]}),
    preset=nncf.QuantizationPreset.MIXED,
    subset_size=len(images),
    fast_bias_correction=False,
    advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
)
onnx.save(quantized, result / "compressed.onnx")
