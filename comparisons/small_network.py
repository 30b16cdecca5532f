"""A network that takes a millisecond an image, so that stages are measured and not the network."""

from torch import nn


def small_network(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Build the network for images of any size."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 8, stride=8), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes),
    )  # fmt: skip
