"""Pretrained weights: those that torchvision publishes, by name, or a file, from which no code is executed."""

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lightweight.core.errors import InputError, bad_param, first_line
from lightweight.core.files import user_path
from lightweight.core.module_state import load_state
from lightweight.core.torchvision_compat import torchvision

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which training scripts store the weights
COUNTER = "num_batches_tracked"  # files from before PyTorch 0.4.1 lack it, and it is not used
MAX_NAMES_SHOWN = 5
REAL_DTYPES = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
}  # fmt: skip


def load_weights(model: nn.Module, network: str, source: str, root: Path, *, new_classifier: bool) -> list[str]:
    """Load pretrained weights into `model`, and return the names of those that keep their initial values.

    `source` is a torchvision weights name such as `IMAGENET1K_V1` (downloaded, hash checked), or a `.safetensors` or
    state-dict file relative to `root`. With `new_classifier`, the last layer is kept where its number of classes
    differs. Raises InputError that lists all other missing, unexpected and misshapen entries.
    """
    weights = read_weights(network, source, root)
    own = model.state_dict()
    misshapen = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    classifier = _last_layer(model) if new_classifier else []
    kept = [name for name in classifier if name in misshapen and weights[name].shape[1:] == own[name].shape[1:]]
    faults = {
        "missing": [name for name in own if name not in weights and not name.endswith(COUNTER)],
        "unexpected": [name for name in weights if name not in own],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)}, must be {tuple(own[name].shape)}"
            for name in misshapen
            if name not in kept
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{fault}: {_first_names(names)}" for fault, names in faults.items() if names)
        raise bad_param("train.weights", source, f"does not fit the network {network!r}; {listed}")
    load_state(model, own | {name: tensor for name, tensor in weights.items() if name not in kept})
    return kept


def read_weights(network: str, source: str, root: Path) -> dict[str, Tensor]:
    """Read weights by name from what `source` names; see `load_weights`. Raises InputError."""
    path = user_path(root, source)
    return _load_file(path, source) if path.suffix or path.is_file() else _load_published(network, source)


def _last_layer(model: nn.Module) -> list[str]:
    """List the names of the weights of the classifier: the last linear layer or convolution."""
    layers = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return [name for name in model.state_dict() if name.rpartition(".")[0] in layers[-1:]]


def _load_published(network: str, name: str) -> dict[str, Tensor]:
    """Load weights of torchvision by name. Raises InputError when they are unknown or cannot be downloaded."""
    library, _, model = network.partition("/")
    if library != "torchvision":
        raise bad_param(
            "train.weights", name, f"is no file, and only torchvision/ networks have named weights: {network!r}"
        )
    known = torchvision("models").get_model_weights(model)
    if name not in known.__members__:
        raise bad_param(
            "train.weights", name, f"unknown weights of {network}; known are {', '.join(known.__members__)}"
        )
    try:
        return dict(known[name].get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu"))
    except Exception as error:  # raised by the network, the disk, or a damaged download
        target = Path(torch.hub.get_dir()) / "checkpoints" / Path(known[name].url).name
        reason = " ".join(str(error).split())
        raise bad_param(
            "train.weights", name, f"not found and not downloaded ({reason}); put {known[name].url} at {target}"
        ) from None


def _load_file(path: Path, source: str) -> dict[str, Tensor]:
    """Load the tensors of a file by name. Raises InputError when it is missing, damaged or holds no state dict."""
    if not path.is_file():
        raise bad_param("train.weights", source, "no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of unusual pickle protocols, which it then reads or refuses
            content: Any = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except pickle.UnpicklingError:  # the text of this error advises to execute the file
        raise InputError(f"{path}: not loaded as weights: damaged, or more than tensors: save a state_dict()") from None
    except Exception as error:  # a damaged file can raise any exception
        raise InputError(f"{path}: not loaded as weights: {first_line(error)}") from None
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise InputError(f"{path}: holds no state dict: it must map names to tensors")
    refused = [name for name, tensor in content.items() if not _is_real_array(tensor)]
    if refused:
        raise InputError(f"{path}: must hold arrays of real numbers, these are none: {_first_names(refused)}")
    parallel = all(name.startswith("module.") for name in content)  # of a network wrapped in DataParallel
    return {name.removeprefix("module.") if parallel else name: tensor for name, tensor in content.items()}


def _unpickle(path: Path) -> Any:
    """Load a file of `torch.save` that holds nothing but tensors in containers.

    Raises any exception for a damaged file. Archives with compressed entries are refused: `torch.save` writes none, and
    a compressed file of some kilobytes could hold gigabytes.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if not zipped:  # the format before PyTorch 1.6; reading from memory cannot allocate more than the file holds
        return torch.load(io.BytesIO(path.read_bytes()), "cpu", weights_only=True)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    uncompressed = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    unique = len({entry.filename for entry in entries}) == len(entries)
    if not (uncompressed and unique and sum(entry.file_size for entry in entries) <= path.stat().st_size):
        raise ValueError("its entries are packed, repeated, or larger than the file")
    return torch.load(path, "cpu", weights_only=True)


def _is_real_array(tensor: Tensor) -> bool:
    """Return whether a tensor is neither sparse, nested, quantized nor without data, and can become float32."""
    return (
        tensor.layout == torch.strided
        and not tensor.is_nested
        and tensor.device.type == "cpu"
        and tensor.dtype in REAL_DTYPES
    )


def _first_names(names: list[str]) -> str:
    """Join the first names, and count the others."""
    rest = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
    return ", ".join(names[:MAX_NAMES_SHOWN]) + rest
