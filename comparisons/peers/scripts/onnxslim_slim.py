"""Make the graph smaller by onnxslim's defaults."""

import sys
from pathlib import Path

import onnxslim

given, result = Path(sys.argv[1]), Path(sys.argv[2])
onnxslim.slim(str(given / "original.onnx"), str(result / "compressed.onnx"))
