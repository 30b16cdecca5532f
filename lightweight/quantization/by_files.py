"""Conversions of ONNX Runtime that read and write files."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx


def convert_by_files(model: onnx.ModelProto, convert: Callable[[Path, Path], object]) -> onnx.ModelProto:
    """Convert the model by a function that takes the paths of its source and its target, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        onnx.save(model, source)
        convert(source, target)
        return onnx.load(target)
