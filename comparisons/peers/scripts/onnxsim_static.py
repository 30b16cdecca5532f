"""Quantize by onnxsim: a range method per tensor, weights by channel, biases corrected on the images."""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnxsim import correct_bias, quantize_static, simplify

given, result = Path(sys.argv[1]), Path(sys.argv[2])
images = [{"input": image[None]} for image in np.load(given / "calibration.npz")["images"]]
model, same = simplify(onnx.load(given / "original.onnx"))
assert same, "onnxsim's own check of the outputs failed"
quantized = quantize_static(model, images, method="auto", full_graph=True)
onnx.save(correct_bias(model, quantized, images), result / "compressed.onnx")
