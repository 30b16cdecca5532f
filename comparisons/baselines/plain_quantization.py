"""Quantization by ONNX Runtime and by NNCF as their documentation uses them, of the float32 file with its images."""

import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

Quantize = Callable[[Path, np.ndarray, Path], None]  # source, float32 images (N, C, H, W), result


class Maker(NamedTuple):
    """Name a tool, and the method of the tool by which it made a file."""

    tool: str
    method: str

    @property
    def file_name(self) -> str:
        """Return the name of the file without its suffix: lower-case words and hyphens."""
        return re.sub("[^a-z0-9]+", "-", f"{self.tool} {self.method}".lower())


class Images(CalibrationDataReader):
    """Feed calibration images to ONNX Runtime, one at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self.images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the inputs of the next image, None after the last."""
        image = next(self.images, None)
        return None if image is None else {"input": image[None]}


def ort_dynamic(source: Path, images: np.ndarray, result: Path) -> None:
    """Quantize weights to 8 bits and activations while running, with the defaults of `quantize_dynamic`."""
    quantize_dynamic(preprocess(source), result)


def ort_static(source: Path, images: np.ndarray, result: Path) -> None:
    """Quantize with the defaults of `quantize_static`: int8 activations, weights per tensor."""
    quantize_static(preprocess(source), result, Images(images))


def ort_static_uint8(source: Path, images: np.ndarray, result: Path) -> None:
    """Quantize as the documentation advises for x86 CPUs that saturate: uint8 activations, weights in 7 bits."""
    quantize_static(
        preprocess(source),
        result,
        Images(images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def nncf_onnx(source: Path, images: np.ndarray, result: Path) -> None:
    """Quantize the ONNX file with the defaults of NNCF."""
    import nncf

    onnx.save(nncf.quantize(onnx.load(source), nncf.Dataset(list(images), _named)), result)


def nncf_openvino(source: Path, images: np.ndarray, result: Path) -> None:
    """Convert the ONNX file to OpenVINO's format and quantize it with the defaults of NNCF."""
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    openvino.save_model(nncf.quantize(model, nncf.Dataset(list(images), lambda image: image[None])), result)


def openvino_float(source: Path, images: np.ndarray, result: Path) -> None:
    """Convert the ONNX file to OpenVINO's format in float32."""
    import openvino

    openvino.save_model(openvino.Core().read_model(source), result, compress_to_fp16=False)


def available_quantizers() -> dict[Maker, tuple[str, Quantize]]:
    """List file suffix and function by tool and method; those of NNCF and OpenVINO where these are installed."""
    quantizers: dict[Maker, tuple[str, Quantize]] = {
        Maker("ONNX Runtime", "dynamic, defaults"): (".onnx", ort_dynamic),
        Maker("ONNX Runtime", "static, defaults"): (".onnx", ort_static),
        Maker("ONNX Runtime", "static, u8s8 per channel"): (".onnx", ort_static_uint8),
    }
    if find_spec("openvino"):
        quantizers[Maker("OpenVINO", "float32")] = (".xml", openvino_float)
    if find_spec("nncf"):
        quantizers[Maker("NNCF in ONNX Runtime", "static")] = (".onnx", nncf_onnx)
        quantizers[Maker("NNCF in OpenVINO", "static")] = (".xml", nncf_openvino)
    return quantizers


def preprocess(source: Path) -> onnx.ModelProto:
    """Infer shapes, without which ONNX Runtime's quantizers fail on what PyTorch's exporter writes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / source.name
        quant_pre_process(source, path)
        return onnx.load(path)


def _named(image: np.ndarray) -> dict[str, np.ndarray]:
    """Make an image (C, H, W) the named input of the file, a batch of one."""
    return {"input": image[None]}
