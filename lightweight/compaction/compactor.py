"""The compactor makes the smallest file of a network: integers of few bits, entropy-coded."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from lightweight.batchnorm import BnUpdateParams, reestimate_batchnorm
from lightweight.checkpointing.session import Session
from lightweight.codec.container import pack
from lightweight.codec.tensors import CodedTensor, Tensor
from lightweight.compaction.assembly import OTHER_BITS, assemble, find_scales, list_others
from lightweight.compaction.layerwise import LayerwiseRounder
from lightweight.compaction.params import CompactParams
from lightweight.compaction.rounded_weight import RoundedNetwork
from lightweight.core.errors import InputError
from lightweight.core.files import Table
from lightweight.data.sampling import balanced_sample
from lightweight.gram.measure import IMAGES_PER_BATCH
from lightweight.onnx.export import export_onnx
from lightweight.training.history import COLUMNS, History
from lightweight.training.loop import FineTune

WARMUP = 0.3  # share of training over which the rate rises
LAYER_COLUMNS = ["tensor", "shape", "weights", "nonzero", "entropy_bytes"]


@dataclass(frozen=True)
class CompactFile:
    """Hold the bytes of the file, what it holds, and the history of its training; no bytes where none is wanted."""

    content: bytes = b""
    tensors: Sequence[Tensor] = ()
    history: History = field(default_factory=History)

    def tables(self) -> dict[str, Table]:
        """Return the tables of training and of the file's tensors, by the names of their files."""
        rows = [describe_tensor(f"w{number}", tensor) for number, tensor in enumerate(self.tensors)]
        return {"compact": (COLUMNS, self.history.table()), "compact_tensors": (LAYER_COLUMNS, rows)}

    def describe(self) -> str:
        """Describe the file in a phrase."""
        if not self.content:
            return "compact.enabled is false: an empty file"
        weights = sum(tensor.integers.size for tensor in self.tensors if isinstance(tensor, CodedTensor))
        return f"{len(self.content):,} bytes, {8 * len(self.content) / max(1, weights):.3f} bits for each weight"


class Compactor:
    """Make the compact file of a network by section `compact`, with BatchNorm's statistics by section `bn_update`."""

    def __init__(self, network: nn.Module, params: CompactParams, statistics: BnUpdateParams, session: Session) -> None:
        self.network, self.params, self.statistics, self.session = network, params, statistics, session
        self.history = History()

    def run(self, fine_tune: FineTune) -> CompactFile:
        """Pack the network; `trained` trains it first. Raises InputError for a graph that the file cannot hold."""
        if not self.params.enabled:
            return CompactFile()
        exported, weights = self._train(fine_tune) if self.params.method == "trained" else self._choose()
        if others := list_others(exported, weights):
            self.session.log(f"compact  {OTHER_BITS} bits for what is no layer's own weight: {', '.join(others)}")
        try:
            packed = assemble(exported, weights, self.params.bias_bits)
        except ValueError as error:
            raise InputError(f"The network {error}, so that there is no compact file of it") from None
        return CompactFile(pack(packed), packed.tensors, self.history)

    def _train(self, fine_tune: FineTune) -> tuple[onnx.ModelProto, dict[str, CodedTensor]]:
        """Train a copy of the network with rounded weights; return it, exported, and its coded weights."""
        network, session = deepcopy(self.network), self.session
        rounded = RoundedNetwork(network, self.params.step, self.params.rate)
        self.history = session.checkpointer.track("history", self.history)
        penalised = replace(fine_tune, penalty=rounded.add_penalty)
        epochs = penalised(network, 1, lambda done: rounded.raise_rate(done, WARMUP))
        for _ in self.history.record(epochs):
            session.log(f"{self.history.format_row(self.params.epochs)}  {rounded.bits() / 8:,.0f} bytes of weights")
        integers = {name: tensor.cpu().numpy() for name, tensor in rounded.finish().items()}
        number, size = self.statistics.num_images, self.statistics.batch_size
        reestimate_batchnorm(network, session.dataset, number, size, session.seed, session.augmentation)
        exported = export_onnx(network.cpu().eval(), session.dataset.to(torch.device("cpu")))
        return exported, find_scales(exported, integers, self.params.scale_steps)

    def _choose(self) -> tuple[onnx.ModelProto, dict[str, CodedTensor]]:
        """Choose integers layer by layer, without training; return the exported network and its coded weights."""
        dataset = self.session.dataset
        exported = export_onnx(deepcopy(self.network).cpu(), dataset.to(torch.device("cpu")))
        images = dataset.train.take(balanced_sample(dataset.train.labels, self.params.images, self.session.seed))

        def batches() -> Iterator[torch.Tensor]:
            for pixels, _ in dataset.batches(images, IMAGES_PER_BATCH):
                yield pixels

        rounder = LayerwiseRounder(self.params.rate, self.session.checkpointer)
        rounder.fit(self.network, batches, exported)
        return exported, rounder.write(exported)


def describe_tensor(name: str, tensor: Tensor) -> dict[str, Any]:
    """Describe a tensor: shape, values, those that are not zero, and the bytes of their entropy."""
    values = tensor.integers if isinstance(tensor, CodedTensor) else tensor
    counts = np.unique(values, return_counts=True)[1].astype(np.float64)
    entropy = -float((counts * np.log2(counts / max(counts.sum(), 1))).sum()) / 8
    row = [name, "x".join(map(str, values.shape)), values.size, int(np.count_nonzero(values)), round(entropy)]
    return dict(zip(LAYER_COLUMNS, row, strict=True))
