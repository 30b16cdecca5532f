"""Every method of `quantize` beside the runtimes' own quantizers, on the same trained weights, in one run.

    pip install -r requirements-runtimes.txt
    python -m comparisons.quantization [RAW_FOLDER]

`cnn`, `tiny` and ResNet-18 are trained as their recipes say, then every file is made from those weights, scored on all
test images and timed on one thread: all files of a network take turns. RAW_FOLDER holds MNIST/raw and
cifar10-images/{train,test}/CLASS. Weights and files stay in work/comparisons, from which an interrupted run goes on.
Writes comparisons/results/quantization.csv, .md and .png.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from comparisons.baselines.plain_quantization import quantizers
from comparisons.quantization_report import COLUMNS, FIGURES, report
from comparisons.runtimes import Predict, compile_openvino, with_onnxruntime
from lightweight.core.errors import InputError
from lightweight.core.files import read_bytes, read_json, write_csv, write_json
from lightweight.core.machine import cpu_name, vector_extensions
from lightweight.core.process import run_stage
from lightweight.core.yaml import read_yaml
from lightweight.dataset import Dataset, load_dataset
from lightweight.evaluation.latency import interleave, summarize
from lightweight.evaluation.scores import EvaluatedModel, evaluate_file, score
from lightweight.networks.model_file import load_model
from lightweight.onnx import graph
from lightweight.onnx.session import pixels
from lightweight.quantization.calibration import balanced

WORK = Path("work/comparisons")
RECIPES = {"cnn": "mnist-structured", "tiny": "tiny-mnist", "resnet18": "resnet18-cifar10-structured"}
METHODS = ("none", "fp16", "dynamic", "static", "qat", "int4")
CHANGES = {"reduce_range": True, "max_drop": None, "max_logit_error": 1.0, "max_accuracy_drop": 1.0}  # no gate
ELSEWHERE = ("static", "qat")  # whose files are timed in OpenVINO, too
EXPORTED, EAGER = ("ours", "none"), ("PyTorch", "eager")
IMAGES, BATCHES, ROUNDS, BATCH_SIZE = 512, (1, 64), 30, 100


def main() -> None:
    raw = Path(sys.argv[1] if len(sys.argv) > 1 else "data/raw").resolve()
    torch.set_num_threads(1)
    rows = []
    for network, recipe in RECIPES.items():
        folder = WORK / network
        make(folder, recipe, raw)
        about = {"network": network, "cpu": f"{cpu_name()} ({vector_extensions()})"}
        rows += [{key: (row | about)[key] for key in COLUMNS} for row in measured(folder)]
        write_csv(FIGURES, COLUMNS, rows)
    report()


def make(folder: Path, recipe: str, raw: Path) -> None:
    """What is not there yet of a network's weights and files; the stages make them as under `dvc repro`."""
    params = read_yaml(Path(f"recipes/{recipe}.yaml"))
    params["threads"], params["swa"]["start"] = 1, None
    params["quantize"] |= CHANGES | {"calibration_images": IMAGES}
    if params["prepare"]["path"]:
        params["prepare"]["path"] = str(raw / Path(params["prepare"]["path"]).name)
    recipe_file, weights = folder / "recipe.json", folder / "models/recalibrated.safetensors"
    if folder.exists() and not (recipe_file.exists() and read_json(recipe_file) == params):
        shutil.rmtree(folder)
    write_json(recipe_file, params)
    if not weights.exists():
        for name in ("prepare", "train"):
            stage(name, folder, raw, params)
        shutil.rmtree(folder / "models/snapshots")
        (folder / "models/original.safetensors").rename(weights)
    for method in METHODS:
        if not (result := folder / f"{file_name('ours', method)}.onnx").exists():
            stage("quantize", folder, raw, {**params, "quantize": params["quantize"] | {"method": method}})
            (folder / "models/optimized.onnx").rename(result)
    dataset = load_dataset(folder / "data/prepared.safetensors")
    images = pixels(dataset.train.images[balanced(dataset.train.labels, IMAGES, params["seed"])])
    for (tool, method), (suffix, quantize) in quantizers().items():
        if not (result := folder / f"{file_name(tool, method)}{suffix}").exists():
            print(f"{folder.name}  {tool}  {method}", flush=True)
            with TemporaryDirectory(dir=folder) as scratch:  # what has its final name is whole
                quantize(folder / "ours-none.onnx", images, Path(scratch) / result.name)
                for file in sorted(Path(scratch).iterdir()):  # .bin before .xml
                    file.replace(folder / file.name)


def stage(name: str, folder: Path, raw: Path, params: dict[str, Any]) -> None:
    """Run it in `folder`, with these parameters."""
    write_json(folder / "params.yaml", params)  # JSON is YAML
    own = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    own |= {"PYTHONPATH": str(Path.cwd()), "LIGHTWEIGHT_DATA": str(raw)}
    if code := subprocess.run([sys.executable, "-m", f"stages.{name}"], cwd=folder, env=own, check=False).returncode:
        raise InputError(f"{folder}: the stage {name} ended with exit code {code}, see above")


def file_name(tool: str, method: str) -> str:
    return re.sub("[^a-z0-9]+", "-", f"{tool} {method}".lower())


def measured(folder: Path) -> Iterator[dict[str, Any]]:
    """A row per file: accuracy on all test images, costs, and how many times faster than float32 and PyTorch."""
    dataset = load_dataset(folder / "data/prepared.safetensors")
    original = load_model(folder / "models/recalibrated.safetensors", dataset).model
    variants, calls = {}, {}
    for name in [("ours", method) for method in METHODS] + list(quantizers()):
        path = next(path for path in folder.glob(f"{file_name(*name)}.*") if path.suffix in (".onnx", ".xml"))
        if path.suffix == ".xml":
            variants[name], calls[name] = in_openvino(path, folder / f"{file_name(*EXPORTED)}.onnx", dataset)
        else:
            variants[name], calls[name] = in_onnxruntime(path, dataset)
    for method in ELSEWHERE if find_spec("openvino") else ():
        path, name = folder / f"{file_name('ours', method)}.onnx", ("ours in OpenVINO", method)
        variants[name], calls[name] = in_openvino(path, path, dataset)
    times = {size: latency(original, dataset, size, calls) for size in BATCHES}
    for name, variant in variants.items():
        row = dict(zip(("tool", "method"), name, strict=True))
        row |= score(variant, variants[EXPORTED], dataset.test.labels.numpy())
        for size, samples in times.items():
            row[f"batch_{size}_ms"] = float(np.median(samples[name]))
            for against, reference in (("float", EXPORTED), ("eager", EAGER)):
                found = summarize(samples[name], samples[reference])
                for key in ("speedup", "speedup_low", "speedup_high"):
                    row[f"batch_{size}_{against}_{key}"] = found[key]
        yield row
    print(f"{folder.name}  {len(variants)} files measured", flush=True)


def latency(
    original: nn.Module, dataset: Dataset, size: int, calls: dict[tuple[str, str], Predict]
) -> dict[tuple[str, str], np.ndarray]:
    """Milliseconds per call of every file and of the network in PyTorch, in turns."""
    few = dataset.test.images[torch.arange(size) % len(dataset.test)]
    raw, normalized = pixels(few), dataset.normalize(few)
    turns: dict[Any, Callable[[], Any]] = {name: partial(call, raw) for name, call in calls.items()}
    turns[EAGER] = torch.inference_mode()(lambda: original(normalized))
    return interleave(turns, ROUNDS)


def in_onnxruntime(path: Path, dataset: Dataset) -> tuple[EvaluatedModel, Predict]:
    return evaluate_file(path, dataset, BATCH_SIZE, threads=1), with_onnxruntime(path)


def in_openvino(path: Path, exported: Path, dataset: Dataset) -> tuple[EvaluatedModel, Predict]:
    """`exported` is the ONNX file that it was made from, whose names of layers OpenVINO keeps, or the file itself."""
    compiled = compile_openvino(path)
    logits = np.concatenate([compiled({"input": pixels(part)})[0] for part in dataset.test.images.split(BATCH_SIZE)])
    about = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    integer = {
        name.partition("/")[0]
        for node in about
        if node["runtimePrecision"].value in ("u8", "i8")
        for name in node["originalLayersNames"].value.split(",")
    }
    nodes = {name: own[0].name for name, own in graph.weighted(onnx.load(exported)).items()}
    macs = {nodes.get(layer.name, layer.name): layer.macs for layer in graph.layers(read_bytes(exported))}
    weights = path.with_suffix(".bin")
    costs = {
        "size_bytes": path.stat().st_size + (weights.stat().st_size if weights.exists() else 0),
        "int8_mac_share": sum(macs[name] for name in macs if name in integer) / sum(macs.values()),
    }
    return EvaluatedModel(logits.argmax(1), costs), lambda images: compiled({"input": images})


if __name__ == "__main__":
    run_stage(report if sys.argv[1:] == ["--report"] else main)
