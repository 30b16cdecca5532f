"""Export by ultralytics to OpenVINO in int8, as its users do with their own networks."""

import sys
from pathlib import Path

from ultralytics import YOLO

given, result = Path(sys.argv[1]), Path(sys.argv[2])
exported = YOLO(given / "original.onnx", task="classify").export(format="openvino", int8=True)
Path(exported).rename(result / "compressed.xml")
