"""Quantize OpenVINO's format by the defaults of NNCF, which correct biases quickly."""

import sys
from pathlib import Path

import nncf
import numpy as np
import openvino

given, result = Path(sys.argv[1]), Path(sys.argv[2])
images = np.load(given / "calibration.npz")["images"]
model = openvino.Core().read_model(given / "original.onnx")
calibration = nncf.Dataset(list(images), lambda image: image[None])
openvino.save_model(nncf.quantize(model, calibration, subset_size=len(images)), result / "compressed.xml")
