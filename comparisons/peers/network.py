"""The trained network as a module that takes raw pixels, for peers that compress modules of PyTorch."""

from pathlib import Path

import torch
from torch import Tensor, nn

from lightweight.data.dataset_file import load_dataset
from lightweight.networks.model_file import load_model
from lightweight.onnx.export import FromPixels


def load_network(given: Path) -> nn.Module:
    """Load the network, in evaluation mode, with the normalisation of its input in front."""
    data = load_dataset(given / "given.safetensors")
    return FromPixels(load_model(given / "model.safetensors", data).model, data).eval()


def load_images(given: Path) -> tuple[Tensor, Tensor]:
    """Load the images that a peer may use, float32 (N, C, H, W) from 0 to 255, and their labels."""
    split = load_dataset(given / "given.safetensors").train
    return split.images[:].to(torch.float32), split.labels
