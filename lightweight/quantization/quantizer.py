"""The file that ships: weights and activations in fewer bits, as far as accuracy allows."""

import logging
from collections.abc import Callable, Collection, Iterable
from types import ModuleType
from typing import Any, Literal, Protocol

import onnx
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.errors import bad_param
from lightweight.core.machine import saturates
from lightweight.core.params import Params
from lightweight.dataset import Dataset, Split
from lightweight.networks.validation import SLACK
from lightweight.onnx.export import export_onnx, finish
from lightweight.onnx.session import onnx_logits, open_session, torch_logits
from lightweight.quantization.accuracy_control import AccuracyControl, Score
from lightweight.quantization.calibration import Calibration, balanced, rows
from lightweight.quantization.parity import accuracy, check_parity, logit_error
from lightweight.quantization.post_training import DynamicConverter, Float16Converter, Int4Converter, StaticConverter
from lightweight.training.history import Epoch, History

BATCH_SIZE = 256
LINEAR = ("dynamic", "int4")  # methods that leave convolutions as they are


class QuantizeParams(Params):
    method: Literal["none", "fp16", "dynamic", "static", "qat", "int4"]
    calibration: Calibration
    percentile: float = Field(gt=50, le=100)
    calibration_images: int = Field(ge=1)
    reduce_range: bool
    max_drop: float | None = Field(ge=0, le=1)
    epochs: int = Field(ge=1, le=10_000)
    lr: float = Field(gt=0, le=10)
    max_logit_error: float = Field(gt=0)
    max_accuracy_drop: float = Field(ge=0, le=1)

    @field_validator("max_accuracy_drop")
    @classmethod
    def _check_limits(cls, value: float, info: ValidationInfo) -> float:
        allowed = info.data.get("max_drop")
        if allowed is not None and allowed > value:
            raise ValueError(f"must be at least max_drop, {allowed}: a file that loses more fails the stage")
        return value


class Converter(Protocol):
    """`layers` names what can be converted; `convert` makes a file in which the named layers stay float32."""

    layers: Collection[str]

    def convert(self, excluded: Collection[str]) -> onnx.ModelProto: ...


def load_qat() -> ModuleType:
    """The module for quantization-aware training: torchao takes seconds to import, and tells what it misses of GPUs."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from lightweight.quantization import qat

    return qat


class Quantizer:
    """Makes the file of one model; `fine_tune` is `train` with its settings, for quantization-aware training.

    `calibration` are the indices of the training images that ranges come from, `rows` the trials in search of
    `max_drop`, `kept` the layers that went back to float32, `history` that of the training.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        params: QuantizeParams,
        seed: int,
        threads: int,
        fine_tune: Callable[..., Iterable[Epoch]],
        checkpointer: Checkpointer,
        log: Callable[[str], None],
    ) -> None:
        self.model, self.dataset, self.params, self.threads = model, dataset, params, threads
        self.fine_tune, self.checkpointer, self.log = fine_tune, checkpointer, log
        self.calibration = balanced(dataset.train.labels, params.calibration_images, seed)
        self.images = dataset.train.take(self.calibration)
        self.history = History()
        self.rows: list[dict[str, Any]] = []
        self.excluded: list[str] = []

    def run(self) -> bytes:
        """The bytes of the file. Equal models, data and seeds give equal bytes on one type of CPU."""
        if self.params.method == "none":
            return export_onnx(self.model, self.dataset).SerializeToString(deterministic=True)
        self.method = self._method()
        if not self.method.layers:
            kind = "linear layer" if self.params.method in LINEAR else "layer with weights"
            raise bad_param("quantize.method", self.params.method, f"the network has no {kind} that it could convert")
        if self.params.max_drop is not None:
            self._exclude_until(self.params.max_drop)
        return self._file(self.excluded)

    @property
    def layers(self) -> Collection[str]:
        """What the method can convert."""
        return self.method.layers if self.params.method != "none" else ()

    def calibrated(self) -> list[dict[str, Any]]:
        """The images that ranges come from, or errors of single layers; none where nothing looked at them."""
        used = self.params.method in ("static", "qat") or self.rows
        return rows(self.dataset, self.calibration) if used else []

    def check(self, content: bytes) -> tuple[float, float]:
        """`check_parity` of the file on validation; warns of a CPU on which sums of its products saturate."""
        params, val = self.params, self.dataset.val
        if params.method in ("dynamic", "static", "qat") and saturates() and not params.reduce_range:
            rule = "quantize.reduce_range: true avoids it"
            self.log(f"warning: sums of 8-bit products saturate on this CPU (no VNNI): {rule}")
        before, expected = (
            torch_logits(model, self.dataset, val, BATCH_SIZE) for model in (self.model, self.reference())
        )
        found = onnx_logits(open_session(content, self.threads), val, BATCH_SIZE)
        return check_parity(expected, found, val, params, before)

    def reference(self) -> nn.Module:
        """The model with which the file must agree: the one that was trained to be rounded, or the given one."""
        return self.method.reference(self.excluded) if self.params.method == "qat" else self.model

    def _method(self) -> Converter:
        params = self.params
        if params.method == "qat":
            return self._trained()
        exported = export_onnx(self.model, self.dataset)
        match params.method:
            case "fp16":
                return Float16Converter(exported)
            case "dynamic":
                return DynamicConverter(exported, params.reduce_range)
            case "int4":
                return Int4Converter(exported)
        return StaticConverter(exported, params.reduce_range, self.images.images, params.calibration, params.percentile)

    def _trained(self) -> Converter:
        trained = load_qat().QATConverter(self.model, self.dataset, self.images.images, self.params.reduce_range)
        if trained.layers:
            self.history = self.checkpointer.track("history", self.history)
            for _ in self.history.record(trained.train(self.fine_tune)):
                self.log(self.history.line(self.params.epochs))
        return trained

    def _file(self, excluded: Collection[str]) -> bytes:
        model = self.method.convert(excluded)
        finish(model, self.dataset)
        return model.SerializeToString(deterministic=True)

    def _exclude_until(self, max_drop: float) -> None:
        def score_on(split: Split, model: nn.Module) -> tuple[float, Score]:
            expected = torch_logits(model, self.dataset, split, BATCH_SIZE)

            def score(excluded: Collection[str]) -> tuple[float, float]:
                found = onnx_logits(open_session(self._file(excluded), self.threads), split, BATCH_SIZE)
                return accuracy(found, split), logit_error(expected, found)

            return accuracy(expected, split), score

        whole = self.method.reference(self.method.layers) if self.params.method == "qat" else self.model
        (before, score), (_, probe) = score_on(self.dataset.val, self.model), score_on(self.images, whole)
        search = AccuracyControl(self.method.layers, score, probe, self.checkpointer)
        least, self.rows = before - max_drop - SLACK, search.rows
        self.excluded = search.search(least)
        left = self.rows[-1]["val_accuracy"]
        if left < least:
            rule = f"cannot be met: with every layer in float32 the file still loses {before - left:.3g}"
            raise bad_param("quantize.max_drop", max_drop, rule)
