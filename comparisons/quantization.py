"""Every method of `quantize` beside the runtimes' own quantizers, on the same trained weights, in one run.

    pip install -r requirements-runtimes.txt
    python -m comparisons.quantization [RAW_FOLDER]

`cnn`, `tiny` and ResNet-18 are trained as their recipes say, then every file is made from those weights, scored on all
test images and timed on one thread: all files of a network take turns. RAW_FOLDER holds MNIST/raw and
cifar10-images/{train,test}/CLASS. Weights and files stay in work/comparisons, from which an interrupted run goes on.
Writes comparisons/results/quantization.csv, and the table and the picture of comparisons.quantization_report.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from comparisons.baselines.plain_quantization import Maker, available_quantizers
from comparisons.quantization_report import BATCHES, COLUMNS, ENDS, FIGURES, report
from comparisons.runtimes import Predict, compile_openvino, with_onnxruntime
from lightweight.core.errors import InputError
from lightweight.core.files import read_bytes, read_json, write_csv, write_json
from lightweight.core.machine import cpu_name, vector_extensions
from lightweight.core.yaml import read_yaml
from lightweight.data.dataset import Dataset
from lightweight.data.dataset_file import load_dataset
from lightweight.data.sampling import balanced_sample
from lightweight.evaluation.latency import compare_ratio
from lightweight.evaluation.scores import EvaluatedModel, evaluate_file, score
from lightweight.evaluation.timing import Effort, Opener, time_in_turns
from lightweight.execution.process import run_stage
from lightweight.networks.model_file import load_model
from lightweight.onnx.graph import list_layers
from lightweight.onnx.logits import pixels
from lightweight.onnx.weights import list_weighted_nodes

WORK = Path("work/comparisons")
RECIPES = {"cnn": "mnist-structured", "tiny": "tiny-mnist", "resnet18": "resnet18-cifar10-structured"}
METHODS = ("none", "fp16", "dynamic", "static", "qat", "int4")
CHANGES = {"reduce_range": True, "max_drop": None, "max_logit_error": 1.0, "max_accuracy_drop": 1.0}  # no gate
IN_OPENVINO = ("static", "qat")  # our methods whose files are timed in OpenVINO, too
EXPORTED, EAGER = Maker("ours", "none"), Maker("PyTorch", "eager")
IMAGES, ROUNDS, PRECISION, BATCH_SIZE = 512, 30, 0.05, 100


def main() -> None:
    raw = Path(sys.argv[1] if len(sys.argv) > 1 else "data/raw").resolve()
    torch.set_num_threads(1)
    rows = []
    for network, recipe in RECIPES.items():
        folder = WORK / network
        make_files(folder, recipe, raw)
        for row in measure(folder):
            row |= {"network": network, "cpu": f"{cpu_name()} ({vector_extensions()})"}
            rows.append({key: row[key] for key in COLUMNS})
        write_csv(FIGURES, COLUMNS, rows)
    report()


def make_files(folder: Path, recipe: str, raw: Path) -> None:
    """Make the weights and the files of a network that are not in `folder` yet, by the stages and other quantizers."""
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
            run_pipeline_stage(name, folder, raw, params)
        shutil.rmtree(folder / "models/snapshots")
        (folder / "models/original.safetensors").rename(weights)
    for method in METHODS:
        if not (result := folder / f"{Maker('ours', method).file_name}.onnx").exists():
            own_params = params | {"quantize": params["quantize"] | {"method": method}}
            run_pipeline_stage("quantize", folder, raw, own_params)
            (folder / "models/optimized.onnx").rename(result)
    dataset = load_dataset(folder / "data/prepared.safetensors")
    images = pixels(dataset.train.images[balanced_sample(dataset.train.labels, IMAGES, params["seed"])])
    for maker, (suffix, quantize) in available_quantizers().items():
        if not (result := folder / f"{maker.file_name}{suffix}").exists():
            print(f"{folder.name}  {maker.tool}  {maker.method}", flush=True)
            with TemporaryDirectory(dir=folder) as scratch:  # a file under its final name is whole
                quantize(folder / "ours-none.onnx", images, Path(scratch) / result.name)
                for file in sorted(Path(scratch).iterdir()):  # .bin before .xml
                    file.replace(folder / file.name)


def run_pipeline_stage(name: str, folder: Path, raw: Path, params: dict[str, Any]) -> None:
    """Run a stage of the pipeline in `folder` with these parameters. Raises InputError when the stage fails."""
    write_json(folder / "params.yaml", params)  # JSON is YAML
    own = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    own |= {"PYTHONPATH": str(Path.cwd()), "LIGHTWEIGHT_DATA": str(raw)}
    if code := subprocess.run([sys.executable, "-m", f"stages.{name}"], cwd=folder, env=own, check=False).returncode:
        raise InputError(f"{folder}: the stage {name} ended with exit code {code}, see above")


def measure(folder: Path) -> Iterator[dict[str, Any]]:
    """Score and time every file of a network; yields a row per file with its speedups over float32 and PyTorch."""
    dataset = load_dataset(folder / "data/prepared.safetensors")
    original = load_model(folder / "models/recalibrated.safetensors", dataset).model
    exported = folder / f"{EXPORTED.file_name}.onnx"
    models: dict[Maker, EvaluatedModel] = {}
    calls: dict[Maker, Predict] = {}
    for maker in [Maker("ours", method) for method in METHODS] + list(available_quantizers()):
        path = next(path for path in folder.glob(f"{maker.file_name}.*") if path.suffix in (".onnx", ".xml"))
        if path.suffix == ".xml":
            models[maker], calls[maker] = open_in_openvino(path, exported, dataset)
        else:
            models[maker], calls[maker] = open_in_onnxruntime(path, dataset)
    for method in IN_OPENVINO if find_spec("openvino") else ():
        path, maker = folder / f"{Maker('ours', method).file_name}.onnx", Maker("ours in OpenVINO", method)
        models[maker], calls[maker] = open_in_openvino(path, path, dataset)
    times = {size: measure_latency(original, dataset, size, calls) for size in BATCHES}
    for maker, model in models.items():
        row = maker._asdict() | score(model, models[EXPORTED], dataset.test.labels.numpy())
        for size, samples in times.items():
            row[f"batch_{size}_ms"] = float(np.median(samples[maker]))
            for name, reference in (("float", EXPORTED), ("eager", EAGER)):
                summary = compare_ratio(samples[maker], samples[reference], PRECISION)
                row |= {f"batch_{size}_{name}_speedup{end}": summary[f"speedup{end}"] for end in ENDS}
        yield row
    print(f"{folder.name}  {len(models)} files measured", flush=True)


def measure_latency(
    original: nn.Module, dataset: Dataset, size: int, calls: dict[Maker, Predict]
) -> dict[Maker, np.ndarray]:
    """Measure the milliseconds per call of every file and of the network in PyTorch, in turns."""
    few = dataset.test.images[torch.arange(size) % len(dataset.test)]
    raw, normalized = pixels(few), dataset.normalize(few)
    turns: dict[Maker, Opener] = {maker: lambda call=call: partial(call, raw) for maker, call in calls.items()}
    turns[EAGER] = lambda: torch.inference_mode()(partial(original, normalized))
    pairs = [(maker, reference) for maker in calls for reference in {EXPORTED, EAGER} - {maker}]
    return time_in_turns(turns, pairs, Effort(ROUNDS, PRECISION, threads=1))


def open_in_onnxruntime(path: Path, dataset: Dataset) -> tuple[EvaluatedModel, Predict]:
    """Evaluate an ONNX file in ONNX Runtime, and return what predicts there on one thread."""
    return evaluate_file(path, dataset, BATCH_SIZE, threads=1), with_onnxruntime(path)


def open_in_openvino(path: Path, exported: Path, dataset: Dataset) -> tuple[EvaluatedModel, Predict]:
    """Evaluate an ONNX or IR file in OpenVINO, and return what predicts there on one thread.

    `exported` is the ONNX file that `path` was made from, whose names of layers OpenVINO keeps, or `path` itself.
    """
    compiled = compile_openvino(path)
    logits = np.concatenate([compiled({"input": pixels(part)})[0] for part in dataset.test.images.split(BATCH_SIZE)])
    executed = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    integer = {
        name.partition("/")[0]
        for node in executed
        if node["runtimePrecision"].value in ("u8", "i8")
        for name in node["originalLayersNames"].value.split(",")
    }
    nodes = {name: own[0].name for name, own in list_weighted_nodes(onnx.load(exported)).items()}
    macs = {nodes.get(layer.name, layer.name): layer.macs for layer in list_layers(read_bytes(exported))}
    weights = path.with_suffix(".bin")
    costs = {
        "size_bytes": path.stat().st_size + (weights.stat().st_size if weights.exists() else 0),
        "int8_mac_share": sum(macs[name] for name in macs if name in integer) / sum(macs.values()),
    }
    return EvaluatedModel(logits.argmax(1), costs), lambda images: compiled({"input": images})


if __name__ == "__main__":
    run_stage(main)
