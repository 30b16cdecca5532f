"""Import of torchvision with any build of torch, also where torchvision's own binary does not load."""

import importlib
from types import ModuleType

import torch

OPERATORS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # what it declares lives as long as it does


def torchvision(part: str) -> ModuleType:
    """Import and return `torchvision.<part>`, also where torchvision's own binary does not load.

    The wheel is built against CUDA torch. On CPU-only torch its import registers shapes for two detection
    operators that do not exist then; declaring them is enough for data sets, transforms and classifiers.
    """
    try:
        return importlib.import_module(f"torchvision.{part}")
    except RuntimeError:
        for schema in OPERATORS.values():
            LIBRARY.define(schema)
        return importlib.import_module(f"torchvision.{part}")
