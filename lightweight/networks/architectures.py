"""Built-in networks: functions of channels, image size and number of classes that return an `nn.Module`."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


def cnn(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Build three convolutions and two linear layers: 25 MB at 1x28x28 and 10 classes, 99.8 % of it linear."""
    pixels = (image_size // 2) ** 2
    return _chain(
        conv1=nn.Conv2d(channels, 16, 5, padding=2, bias=False),
        norm1=nn.BatchNorm2d(16),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(16, 24, 3, padding=1, bias=False),
        norm2=nn.BatchNorm2d(24),
        relu2=nn.ReLU(),
        conv3=nn.Conv2d(24, 32, 3, padding=1, bias=False),
        norm3=nn.BatchNorm2d(32),
        relu3=nn.ReLU(),
        flatten=nn.Flatten(),
        fc1=nn.Linear(32 * pixels, 992, bias=False),
        norm4=nn.BatchNorm1d(992),
        relu4=nn.ReLU(),
        dropout=nn.Dropout(0.5),
        fc2=nn.Linear(992, num_classes),
    )


def convnet(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Build the network of the PyTorch tutorials: two plain 3x3 convolutions and one linear layer."""
    pixels = (image_size // 4) ** 2
    return _chain(
        conv1=nn.Conv2d(channels, 16, 3, padding=1),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(16, 32, 3, padding=1),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc=nn.Linear(32 * pixels, num_classes),
    )


def conv12(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Build the network of the Keras tutorials: an unpadded 3x3 convolution, max-pool, linear: 20,410 parameters."""
    pixels = ((image_size - 2) // 2) ** 2
    return _chain(
        conv=nn.Conv2d(channels, 12, 3),
        relu=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc=nn.Linear(12 * pixels, num_classes),
    )


def lenet300(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Build LeNet-300-100 (LeCun et al. 1998), 266,610 parameters, with the ReLU of the compression literature."""
    return _chain(
        flatten=nn.Flatten(),
        fc1=nn.Linear(channels * image_size**2, 300),
        relu1=nn.ReLU(),
        fc2=nn.Linear(300, 100),
        relu2=nn.ReLU(),
        fc3=nn.Linear(100, num_classes),
    )


def lenet5(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Build LeNet-5 as Caffe defines it (20-50-500, after LeCun et al. 1998), 431,080 parameters."""
    pixels = ((image_size - 4) // 2 - 4) // 2
    return _chain(
        conv1=nn.Conv2d(channels, 20, 5),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(20, 50, 5),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(50 * pixels**2, 500),
        relu=nn.ReLU(),
        fc2=nn.Linear(500, num_classes),
    )


def tiny(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Build four convolutions with BatchNorm and a global average, from 23 pixels up: 25,322 parameters on MNIST."""
    widths = (channels, 16, 24, 32, 48)
    layers: dict[str, nn.Module] = {}
    for number, (before, after) in enumerate(pairwise(widths), start=1):
        shape = (5, 2, 2) if number == 1 else (3, 1, 0)  # kernel, stride, padding
        layers[f"conv{number}"] = nn.Conv2d(before, after, *shape, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm2d(after)
        layers[f"relu{number}"] = nn.ReLU()
        if number == 2:
            layers["pool"] = nn.MaxPool2d(2)
    return _chain(**layers, mean=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(48, num_classes))


def resnet20(channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Build ResNet-20 for CIFAR (He et al. 2016, section 4.2) with parameter-free shortcuts (A): 269,722 parameters."""
    blocks = [_Residual(before, after) for before, after in RESNET20_WIDTHS]
    return _chain(
        conv=nn.Conv2d(channels, 16, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(16),
        relu=nn.ReLU(),
        blocks=nn.Sequential(*blocks),
        mean=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(64, num_classes),
    )


RESNET20_WIDTHS = [(16, 16)] * 3 + [(16, 32)] + [(32, 32)] * 2 + [(32, 64)] + [(64, 64)] * 2


class _Residual(nn.Module):
    """Represent two 3x3 convolutions beside an identity, subsampled and padded with zero channels where widths grow."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.added = (1, 0) if before == after else (2, after - before)
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, before, H, W) to (N, after, H / stride, W / stride)."""
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(images)))))
        if self.added:
            half = self.added // 2
            images = F.pad(images[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.added - half))
        return F.relu(residual + images)


def _chain(**layers: nn.Module) -> nn.Module:
    """Chain named layers in the given order."""
    return nn.Sequential(OrderedDict(layers))


NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    function.__name__: function for function in (cnn, convnet, conv12, lenet300, lenet5, tiny, resnet20)
}
