"""Tiny networks, one for each family of operators through which channels pass."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Net(nn.Module):
    """A network of named layers whose way is a function of the layers and the images (N, 3, 8, 8)."""

    def __init__(self, way: Callable[["Net", Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.way = way
        for name, layer in layers.items():
            self.add_module(name, layer)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -1, 1)
                nn.init.uniform_(module.weight, 0.5, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.way(self, images)


class Attention(nn.Module):
    """Attention of heads whose number and width are attributes, as timm writes it."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.fused = heads, width // heads, fused
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        n, length, _ = tokens.shape
        parts = self.qkv(tokens).reshape(n, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        if self.fused:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            mixed = (query @ key.transpose(-2, -1) / 2).softmax(-1) @ value
        return self.proj(mixed.transpose(1, 2).flatten(2))


class EinsumAttention(Attention):
    """Attention by sums over named dimensions, as MaxViT of torchvision writes it."""

    def forward(self, tokens: Tensor) -> Tensor:
        n, length, _ = tokens.shape
        shape = n, length, self.num_heads, self.head_dim
        query, key, value = (part.reshape(shape).transpose(1, 2) for part in self.qkv(tokens).chunk(3, -1))
        weights = torch.einsum("nhid,nhjd->nhij", query, key).softmax(-1)
        return self.proj(torch.einsum("nhij,nhjd->nhid", weights, value).transpose(1, 2).flatten(2))


class ChannelAttention(Attention):
    """Attention of the channels of a head to each other (El-Nouby et al. 2021), as in EdgeNeXt."""

    def forward(self, tokens: Tensor) -> Tensor:
        n, length, _ = tokens.shape
        parts = self.qkv(tokens).reshape(n, length, 3, self.num_heads, -1).permute(2, 0, 3, 4, 1)
        query, key, value = parts.unbind(0)
        weights = (F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)).softmax(-1)
        return self.proj((weights @ value).permute(0, 3, 1, 2).reshape(n, length, -1))


class Split(nn.Module):
    """A layer whose output is split at widths that are attributes, of which the second part is a gate of the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.widths = nn.Conv2d(8, 12, 1), (8, 4)
        self.first, self.second = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        first, second = torch.split(self.conv(images), self.widths, 1)
        return self.first(first) * self.second(second).sigmoid()


class Scale(nn.Module):
    """Factors by channel, in a shape that is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.factors, self.shape = nn.Parameter(torch.linspace(0.5, 2, 8)), (8, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factors.view(self.shape)


class Shift(nn.Module):
    """Summands by channel, in a buffer that is in no state."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("summands", torch.zeros(8, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images + self.summands


class Partial(nn.Module):
    """A convolution of the first channels beside the others, of numbers that are attributes, as in FasterNet."""

    def __init__(self) -> None:
        super().__init__()
        self.convolved, self.untouched = 4, 8
        self.first, self.mix = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(12, 12, 1)

    def forward(self, images: Tensor) -> Tensor:
        first, rest = torch.split(images, [self.convolved, self.untouched], 1)
        return images + self.mix(torch.cat([self.first(first), rest], 1))


def _shuffle(images: Tensor, groups: int) -> Tensor:
    n, channels, height, width = images.shape
    return images.view(n, groups, channels // groups, height, width).transpose(1, 2).reshape(images.shape)


def _standardised(net: Net, images: Tensor) -> Tensor:
    weight = net.b.weight.flatten(1)
    weight = (weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)
    return F.conv2d(net.a(images), weight.view_as(net.b.weight), padding=1)


def _tokens(net: Net, images: Tensor) -> Tensor:
    return net.a(images).flatten(2).transpose(1, 2)


def _partial_sums(net: Net, images: Tensor) -> Tensor:
    seen = net.a(images)
    for layer in net.layers:
        computed, width = layer(seen), seen.shape[1]
        seen = torch.cat([computed[:, :width] + seen, computed[:, width:]], 1)
    return seen


def _in_place(net: Net, images: Tensor) -> Tensor:
    computed = net.b(images)
    computed[:, : net.a.out_channels] += net.a(images)
    return computed


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


def _pooled(net: Net, features: Tensor) -> Tensor:
    return net.fc(features.mean((2, 3)))


def make(name: str) -> nn.Module:
    """Make a network by the name of its family."""
    torch.manual_seed(0)
    fc8, fc4, fc16 = (nn.Linear(width, 5) for width in (8, 4, 16))
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1), nn.Sigmoid())
    match name:
        case "residual sum":
            return Net(lambda n, x: _pooled(n, n.b((y := n.a(x)).relu()) + y), a=conv(3, 8), b=conv(8, 8), fc=fc8)
        case "in-place sum of a part":
            return Net(lambda n, x: _pooled(n, _in_place(n, x)), a=conv(3, 4), b=conv(3, 8), fc=fc8)
        case "depthwise":
            layers = {"a": conv(3, 8), "b": conv(8, 16, 8), "norm": nn.BatchNorm2d(16), "fc": fc16}
            return Net(lambda n, x: _pooled(n, n.norm(n.b(n.a(x))).relu()), **layers)
        case "concat":
            layers = {"a": conv(3, 8), "b": conv(8, 8), "norm": nn.BatchNorm2d(16), "fc": fc16}
            return Net(lambda n, x: _pooled(n, n.norm(torch.cat([y := n.a(x), n.b(y)], 1)).relu()), **layers)
        case "shuffle":
            return Net(lambda n, x: _pooled(n, n.b(_shuffle(n.a(x), 2))), a=conv(3, 8), b=conv(8, 8), fc=fc8)
        case "gate":
            layers = {"a": conv(3, 16), "fc": fc8}
            return Net(lambda n, x: _pooled(n, (y := n.a(x).chunk(2, 1))[0] * y[1].sigmoid()), **layers)
        case "flip":
            return Net(lambda n, x: _pooled(n, n.a(x).flip(1)), a=conv(3, 8), fc=fc8)
        case "pixel shuffle":
            layers = {"a": conv(3, 8), "b": conv(2, 4), "fc": fc4}
            return Net(lambda n, x: _pooled(n, n.b(F.pixel_shuffle(n.a(x), 2))), **layers)
        case "glu":
            return Net(lambda n, x: _pooled(n, F.glu(n.a(x), 1)), a=conv(3, 16), fc=fc8)
        case "grouped":
            layers = {"a": conv(3, 8), "b": conv(8, 16, 2), "norm": nn.BatchNorm2d(16), "fc": fc16}
            return Net(lambda n, x: _pooled(n, n.norm(n.b(n.a(x)))), **layers)
        case "flatten":
            return Net(lambda n, x: n.fc(n.a(x).flatten(1)), a=conv(3, 8), fc=nn.Linear(512, 5))
        case "squeeze and excite":
            return Net(lambda n, x: _pooled(n, (y := n.a(x)) * n.gate(y)), a=conv(3, 8), gate=gate, fc=fc8)
        case "layer norm":
            layers = {"a": conv(3, 8), "norm": nn.LayerNorm(8), "b": nn.Linear(8, 8), "fc": fc8}
            return Net(lambda n, x: n.fc((n.b(n.norm(y := _tokens(n, x))) + y).mean(1)), **layers)
        case "group norm":
            layers = {"a": conv(3, 8), "norm": nn.GroupNorm(2, 8), "fc": fc8}
            return Net(lambda n, x: _pooled(n, n.norm(n.a(x)).relu()), **layers)
        case "softmax over channels":
            return Net(lambda n, x: _pooled(n, n.a(x).softmax(1)), a=conv(3, 8), fc=fc8)
        case "norm over channels":
            return Net(lambda n, x: _pooled(n, F.normalize(n.a(x), dim=1)), a=conv(3, 8), fc=fc8)
        case "standardised weights":
            return Net(lambda n, x: _pooled(n, _standardised(n, x)), a=conv(3, 8), b=conv(8, 8), fc=fc8)
        case "attention" | "fused attention":
            layers = {"a": conv(3, 8), "attention": Attention(8, 4, name != "attention"), "fc": fc8}
            return Net(lambda n, x: n.fc(n.attention(_tokens(n, x)).mean(1)), **layers)
        case "einsum attention":  # of two heads, of which one stays: einsum puts a dimension of size 1 elsewhere
            layers = {"a": conv(3, 8), "attention": EinsumAttention(8, 2, False), "fc": fc8}
            return Net(lambda n, x: n.fc(n.attention(_tokens(n, x)).mean(1)), **layers)
        case "attention of channels":
            layers = {"a": conv(3, 8), "attention": ChannelAttention(8, 2, False), "fc": fc8}
            return Net(lambda n, x: n.fc(n.attention(_tokens(n, x)).mean(1)), **layers)
        case "ghost":
            layers = {"a": conv(3, 8), "b": conv(8, 8, 8), "c": conv(3, 16), "fc": fc16}
            return Net(
                lambda n, x: _pooled(n, torch.cat([y := n.a(x), n.b(y)], 1)[:, : n.c.out_channels] + n.c(x)), **layers
            )
        case "split by attributes":
            return Net(lambda n, x: _pooled(n, n.b(n.a(x))), a=conv(3, 8), b=Split(), fc=fc4)
        case "view by attributes":
            return Net(lambda n, x: _pooled(n, n.b(n.a(x)).tanh()), a=conv(3, 8), b=Scale(), fc=fc8)
        case "buffer in no state":
            return Net(lambda n, x: _pooled(n, n.b(n.a(x)).tanh()), a=conv(3, 8), b=Shift(), fc=fc8)
        case "partial convolution":
            layers = {"a": conv(3, 12), "b": Partial(), "c": Partial(), "fc": nn.Linear(12, 5)}
            return Net(lambda n, x: _pooled(n, n.c(n.b(n.a(x)))), **layers)
        case "mixer":
            layers = {"a": conv(3, 8), "b": nn.Linear(64, 16), "c": nn.Linear(16, 64), "fc": fc8}
            return Net(lambda n, x: n.fc(n.c(n.b(n.a(x).flatten(2)).relu()).mean(2)), **layers)
        case "partial sums":
            stack = nn.ModuleList(nn.Conv2d(4 + index, 5 + index, 1) for index in range(12))
            return Net(lambda n, x: _pooled(n, _partial_sums(n, x)), a=conv(3, 4), layers=stack, fc=fc16)
        case "transposed":
            layers = {"a": conv(3, 8), "b": nn.ConvTranspose2d(8, 6, 2), "c": conv(6, 8), "fc": fc8}
            return Net(lambda n, x: _pooled(n, n.c(n.b(n.a(x)).relu())), **layers)
    raise AssertionError(name)
