"""Weights made elsewhere: published ones of torchvision by name, or a file, read without executing anything in it."""

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
from lightweight.core.torchvision_compat import torchvision

WRAPPERS = ("state_dict", "model_state_dict", "model")  # what training scripts call the weights among other things
COUNTER = "num_batches_tracked"  # files from before PyTorch 0.4.1 lack it, and it is not used
SHOWN = 5
NUMBERS = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
}  # fmt: skip


def load_weights(model: nn.Module, network: str, source: str, root: Path, *, new_classifier: bool) -> list[str]:
    """Replace the weights of `model`; returns the names of those that it keeps.

    `source` is a torchvision weights name such as `IMAGENET1K_V1` (downloaded, hash checked), or a `.safetensors` or
    state-dict file relative to `root`. With `new_classifier`, the last layer is kept where its number of classes
    differs. Raises InputError that names the missing, unexpected and misshapen entries otherwise.
    """
    path = root / source
    found = _read(path, source) if path.suffix or path.is_file() else _published(network, source)
    own = model.state_dict()
    other = [name for name in own if name in found and found[name].shape != own[name].shape]
    classifier = _last_layer(model) if new_classifier else []
    kept = [name for name in classifier if name in other and found[name].shape[1:] == own[name].shape[1:]]
    misshapen = [f"{name} {tuple(found[name].shape)}, must be {tuple(own[name].shape)}" for name in other]
    faults = {
        "missing": [name for name in own if name not in found and not name.endswith(COUNTER)],
        "unexpected": [name for name in found if name not in own],
        "of another shape": [text for name, text in zip(other, misshapen, strict=True) if name not in kept],
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {_some(names)}" for kind, names in faults.items() if names)
        raise bad_param("train.weights", source, f"does not fit the network {network!r}; {listed}")
    model.load_state_dict(own | {name: tensor for name, tensor in found.items() if name not in kept})
    return kept


def _last_layer(model: nn.Module) -> list[str]:
    """The names of the weights of the last linear layer or convolution, which is the classifier."""
    layers = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return [name for name in model.state_dict() if name.rpartition(".")[0] in layers[-1:]]


def _published(network: str, name: str) -> dict[str, Tensor]:
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
    except Exception as error:  # of the network, the disk, or a damaged download
        put = Path(torch.hub.get_dir()) / "checkpoints" / Path(known[name].url).name
        reason = " ".join(str(error).split())
        raise bad_param(
            "train.weights", name, f"not found and not downloaded ({reason}); put {known[name].url} at {put}"
        ) from None


def _read(path: Path, source: str) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises InputError when it is missing, damaged or holds no state dict."""
    if not path.is_file():
        raise bad_param("train.weights", source, "no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about unusual pickle protocols, which it then reads or refuses
            content: Any = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except pickle.UnpicklingError:  # whose text advises to execute the file
        raise InputError(f"{path}: not loaded as weights: damaged, or more than tensors: save a state_dict()") from None
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise InputError(f"{path}: not loaded as weights: {first_line(error)}") from None
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise InputError(f"{path}: holds no state dict: it must map names to tensors")
    odd = [name for name, tensor in content.items() if not _is_array(tensor)]
    if odd:
        raise InputError(f"{path}: must hold arrays of real numbers, these are none: {_some(odd)}")
    parallel = all(name.startswith("module.") for name in content)  # saved from inside DataParallel
    return {name.removeprefix("module.") if parallel else name: tensor for name, tensor in content.items()}


def _unpickle(path: Path) -> Any:
    """What `torch.save` wrote, as far as it is tensors in containers. Raises whatever a damaged file leads to.

    It never packs what it writes, and a packed file of some kilobytes could hold gigabytes.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if not zipped:  # from before PyTorch 1.6; a file, unlike this, would reserve memory for all that it is told to read
        return torch.load(io.BytesIO(path.read_bytes()), "cpu", weights_only=True)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    unique = len({entry.filename for entry in entries}) == len(entries)
    if not (plain and unique and sum(entry.file_size for entry in entries) <= path.stat().st_size):
        raise ValueError("its entries are packed, repeated, or larger than the file")
    return torch.load(path, "cpu", weights_only=True)


def _is_array(tensor: Tensor) -> bool:
    """Neither sparse, nested, quantized nor without data, and of a type that can become float32."""
    return (
        tensor.layout == torch.strided
        and not tensor.is_nested
        and tensor.device.type == "cpu"
        and tensor.dtype in NUMBERS
    )


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
