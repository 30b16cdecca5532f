"""One trial of comparisons.networks, in a process whose time is limited.

Its kind is ours, reload, torch-pruning, static or qat.
"""

import resource
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from comparisons.baselines.plain_pruning import plain_structured
from lightweight.core.errors import InputError, first_line
from lightweight.data.dataset import Dataset, Split
from lightweight.macs import count_macs
from lightweight.networks.factory import build
from lightweight.networks.model_file import ModelFile, load_model, save_model
from lightweight.networks.pruned_shapes import changed_shapes
from lightweight.pruning.amounts import counts_to_prune
from lightweight.pruning.groups import describe_skipped, find_groups
from lightweight.pruning.importance import Importance

AMOUNT, CLASSES, IMAGES = 0.5, 10, 64
LIMITS = {"ours": 150, "reload": 60, "torch-pruning": 60, "static": 300, "qat": 300}  # CPU seconds


def run_trial(kind: str, network: str, size: int, folder: Path) -> dict[str, Any]:
    """Return what one trial measures, or its error; from here on the process has so many CPU seconds."""
    resource.setrlimit(resource.RLIMIT_CPU, (LIMITS[kind], LIMITS[kind] + 5))
    torch.set_num_threads(1)
    try:
        return TRIALS[kind](network, size, folder / "pruned.safetensors")
    except InputError as error:
        return {"error": f"refused: {first_line(error)}"}
    except Exception as error:  # of any class: it is the network's, or the other tool's
        return {"error": f"{type(error).__name__}: {first_line(error)}"}


def make(network: str, size: int) -> nn.Module:
    """Build a network with random weights and stirred BatchNorm statistics."""
    torch.manual_seed(0)
    model = build(network, 3, size, CLASSES, False).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def images(size: int, number: int = 2) -> Tensor:
    """Make random images (N, 3, H, W), always the same."""
    return torch.rand(number, 3, size, size, generator=torch.Generator().manual_seed(0))


def prune(network: str, size: int, path: Path) -> dict[str, Any]:
    """Remove the amount of every group, and write the network."""
    model, image = make(network, size), torch.zeros(1, 3, size, size)
    before, started = count_macs(model, image), time.process_time()
    params = SimpleNamespace(method="structured", layers="both", exclude=[], heads=True)
    groups = find_groups(model, image, params, "prune")
    seconds = time.process_time() - started
    dense = build(network, 3, size, CLASSES, False).to("meta")
    scores = groups.scores(Importance("l1", noise(size), 1, 0))
    groups.mask_least_important(counts_to_prune(groups, AMOUNT, "layer", scores), scores)
    groups.remove_channels()
    arguments = {"channels": 3, "image_size": size, "num_classes": CLASSES, "small_stem": False}
    save_model(path, ModelFile(model, network, arguments, {}, changed_shapes(dense, model)))
    with torch.no_grad():
        logits = model.eval()(images(size))
    torch.save(logits, path.with_suffix(".pt"))
    return {
        "macs": before,
        "left": round(count_macs(model, image) / before, 4),
        "planning_s": round(seconds, 1),
        "finite": bool(logits.isfinite().all()) and logits.shape == (2, CLASSES),
        "spared": describe_skipped(groups.skipped),
    }


def reload(network: str, size: int, path: Path) -> dict[str, Any]:
    """Compare the logits of the network as it is read from the file with those before."""
    with torch.no_grad():
        logits = load_model(path).model.eval()(images(size))
    return {"reloads": torch.equal(logits, torch.load(path.with_suffix(".pt"), weights_only=True))}


def prune_by_torch_pruning(network: str, size: int, path: Path) -> dict[str, Any]:
    """Prune as torch-pruning's README shows."""
    model, image = make(network, size), torch.zeros(1, 3, size, size)
    before = count_macs(model, image)
    plain_structured(model, AMOUNT, lambda model: None, AMOUNT, image)
    if model(images(size)).shape != (2, CLASSES):
        return {"error": "the classifier is cut"}
    return {"left": round(count_macs(model, image) / before, 4)}


def noise(size: int) -> Dataset:
    """Make a data set of random images; its three splits are the same."""
    pixels = torch.randint(
        0, 256, (IMAGES, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    split, half = Split(pixels, torch.arange(IMAGES) % CLASSES), torch.full((3,), 0.5)
    return Dataset(split, split, split, half, half, tuple(map(str, range(CLASSES))), input_size=size)


def quantize(method: str) -> Any:
    """Make the trial of a method of quantization; qat trains one batch."""

    def trial(network: str, size: int, path: Path) -> dict[str, Any]:
        from comparisons.training import TRAIN
        from lightweight.checkpointing.session import Session
        from lightweight.core.params import load_params
        from lightweight.onnx.coverage import int8_share
        from lightweight.quantization.params import QuantizeParams
        from lightweight.quantization.quantizer import Quantizer
        from lightweight.training.loop import FineTune

        given = load_params(Path("params.yaml"), quantize=QuantizeParams).quantize.model_dump()
        chosen = {"method": method, "calibration_images": IMAGES, "max_logit_error": 1e9, "max_accuracy_drop": 1.0}
        params = QuantizeParams(**given | chosen | {"epochs": 1, "max_drop": None})
        session, model = Session(noise(size), 0), make(network, size)
        train = TRAIN.model_copy(update={"network": network, "batch_size": IMAGES})
        fine_tune = FineTune(session, train, params.lr, 1, teacher=None)
        started = time.process_time()
        result = Quantizer(ModelFile(model, network, {}), params, session, fine_tune).run()
        return {
            "coverage": round(int8_share(result.coverage), 4),
            "logit_error": round(result.logit_error, 4),
            "seconds": round(time.process_time() - started, 1),
        }

    return trial


TRIALS = {
    "ours": prune,
    "reload": reload,
    "torch-pruning": prune_by_torch_pruning,
    "static": quantize("static"),
    "qat": quantize("qat"),
}
