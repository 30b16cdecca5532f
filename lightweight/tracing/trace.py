"""Trace a network: run it once, and carry the labels of channels through every operator that PyTorch executes."""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from lightweight.core.module_state import forgetting_caches
from lightweight.tracing.imitation import imitate
from lightweight.tracing.labels import Labels, Planes
from lightweight.tracing.memory import LabelMemory
from lightweight.tracing.operators import unknown
from lightweight.tracing.planes import Context, results_in, tensors_in
from lightweight.tracing.rules import COPIES, IGNORED, VIEWS, find_rule, name_operator

Place = tuple[str, str, int]  # a layer, an operator, and its number among those of its name in the layer
Axis = tuple[str, int]  # a parameter or buffer by name, and one of its dimensions
GIVES_OUTPUTS = "it gives the network's outputs"
READS_IMAGE = "its channels are computed with those of the image"


@dataclass(frozen=True)
class Step:
    """Describe an executed operator: where it stands, the planes that it reads, and shape and planes of its results."""

    place: Place
    planes: Planes
    outputs: list[tuple[torch.Size, Planes]]

    @property
    def layer(self) -> str:
        return self.place[0]

    @property
    def name(self) -> str:
        return self.place[1]

    @property
    def results(self) -> Planes:
        return [plane for _, planes in self.outputs for plane in planes]


@dataclass
class Trace:
    """Hold the labels of a network: those of each parameter by dimension, and every operator in order."""

    labels: Labels
    axes: dict[Axis, Tensor]
    steps: list[Step] = field(default_factory=list)
    splits: dict[Place, Tensor] = field(default_factory=dict)  # the labels that are tied where a dimension is split
    multiplied: list[tuple[Tensor, Tensor, bool]] = field(default_factory=list)  # as `Context` has them


class Tracer(TorchDispatchMode):
    """Carry labels through every operator that is executed in this mode."""

    def __init__(self, model: nn.Module, labels: Labels, axes: dict[Axis, Tensor], rows: Set[Place]) -> None:
        super().__init__()
        self.memory = LabelMemory()
        self.context = Context(labels, self.memory)
        self.context.rows = rows
        self.layers: list[str] = []
        self.steps: list[Step] = []
        self.numbers: dict[tuple[str, str], int] = {}
        for name, tensor in _tensors(model):
            planes = []
            for dim in labelled_dims(model, name, tensor):
                shape = [1] * tensor.dim()
                shape[dim] = tensor.shape[dim]
                if (name, dim) not in axes:
                    axes[name, dim] = labels.create(tensor.shape[dim])
                planes.append(axes[name, dim].reshape(shape))
            if planes:
                self.memory.write(tensor, planes, parameter=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in IGNORED:
            return func(*args, **kwargs)
        name, layer = name_operator(func), self.layers[-1] if self.layers else ""
        number = self.numbers[layer, name] = self.numbers.get((layer, name), 0) + 1
        inputs = [plane for tensor in tensors_in([args, kwargs]) for plane in self.memory.read(tensor)]
        self.context.site = f"{layer or 'the network'} ({name})"
        self.context.place = (layer, name, number)
        out = self.execute(func, args, kwargs)
        if inputs or any(self.memory.read(tensor) for tensor in tensors_in(out)):
            self._pass_labels(func, args, kwargs, out)
        if func not in COPIES:
            outputs = [(tensor.shape, self.memory.read(tensor)) for tensor in results_in(out)]
            self.steps.append(Step(self.context.place, inputs, outputs))
        return out

    def _pass_labels(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Give the results of an operator their labels."""
        try:
            if func in VIEWS:
                self.memory.look_through(VIEWS[func], args[0], args[1:], kwargs, tensors_in(out))
            find_rule(func)(self.context, args, kwargs, out)
        except (ValueError, RuntimeError, IndexError, TypeError, KeyError):  # a use that the rule does not know
            unknown(self.context, args, kwargs, out)

    def execute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Execute an operator."""
        return func(*args, **kwargs)


class ShapeTracer(Tracer):
    """Carry labels through operators of which the expensive ones are not computed: labels do not depend on values."""

    def execute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Execute an operator, or give zeros in the shape of its result."""
        return imitate(func, args, kwargs)


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """List the parameters and buffers with real values by name."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tensor) for name, tensor in named if tensor.dim() and tensor.is_floating_point()]


def labelled_dims(model: nn.Module, name: str, tensor: Tensor) -> list[int]:
    """List the dimensions of a parameter that can be channels; those of a convolution's kernel are not."""
    module = model.get_submodule(name.rpartition(".")[0])
    kernel = isinstance(module, nn.modules.conv._ConvNd) and tensor.dim() > 2
    return [dim for dim, size in enumerate(tensor.shape) if size > 1 and not (kernel and dim > 1)]


@contextmanager
def naming_layers(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keep the names of the layers that are running on a stack, also after one of them has failed."""
    handles = []
    for name, module in model.named_modules():

        def enter(module: nn.Module, args: Any, name: str = name) -> None:
            stack.append(name)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            stack.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def plain_operators() -> Iterator[None]:
    """Let attention be computed by operators that every device has, and not by fused ones."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@torch.no_grad()
def run(tracer: Tracer, model: nn.Module, image: Tensor) -> Tensor:
    """Run the network in evaluation mode on an image (1, C, H, W) under a tracer, and return its logits."""
    model.eval()
    with forgetting_caches(model), plain_operators(), naming_layers(model, tracer.layers), tracer:
        return model(image)


def trace(model: nn.Module, image: Tensor, layers: list[str], rows: Set[Place] = frozenset()) -> Trace:
    """Trace a network with an image (1, C, H, W). Leaves it in evaluation mode.

    `layers` receives the names of the layers that are running, outermost first, also when one of them fails.
    """
    labels, axes = Labels(), dict[Axis, Tensor]()
    tracer = ShapeTracer(model, labels, axes, rows)
    tracer.layers = layers
    image = image.clone()
    label_image(tracer, image)
    output = run(tracer, model, image)
    for tensor in tensors_in(output):
        for plane in tracer.memory.read(tensor):
            labels.keep_whole(plane, GIVES_OUTPUTS)
    labels.flatten()
    return Trace(labels, axes, tracer.steps, tracer.context.splits, tracer.context.multiplied)


def label_image(tracer: Tracer, image: Tensor) -> None:
    """Give the channels of the image labels that must stay."""
    if image.shape[1] > 1:
        added = tracer.context.labels.create(image.shape[1])
        tracer.context.labels.keep_whole(added, READS_IMAGE)
        tracer.memory.write(image, [added.reshape(1, -1, 1, 1)])
