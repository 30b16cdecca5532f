"""The quantizer makes the ONNX file that ships: weights and activations in fewer bits, as far as accuracy allows."""

from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from lightweight.checkpointing.session import Session
from lightweight.core.errors import bad_param
from lightweight.core.machine import int8_saturates
from lightweight.dataset import Split
from lightweight.macs import count_macs
from lightweight.networks.model_file import ModelFile
from lightweight.networks.validation import ACCURACY_SLACK
from lightweight.onnx import coverage, graph
from lightweight.onnx.export import export_onnx, finish
from lightweight.onnx.session import onnx_logits, open_session, torch_logits
from lightweight.quantization.accuracy_control import AccuracyControl, Score
from lightweight.quantization.calibration import balanced_sample, describe_images
from lightweight.quantization.converter import Converter, import_training, make_post_training_converter
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.parity import accuracy, check_parity, logit_error
from lightweight.quantization.result import QuantizationResult
from lightweight.training.history import FineTuner, History

BATCH_SIZE = 256
LINEAR = ("dynamic", "int4")  # the methods that convert linear layers only


class Quantizer:
    """Convert one model by section `quantize`; `fine_tune` trains it where the method is quantization-aware training.

    `trials` are the rows of the search for `max_drop`, also after a search that failed.
    """

    def __init__(self, source: ModelFile, params: QuantizeParams, session: Session, fine_tune: FineTuner) -> None:
        self.model, self.params, self.session, self.fine_tune = source.model, params, session, fine_tune
        data = session.dataset
        self.calibration = balanced_sample(data.train.labels, params.calibration_images, session.seed)
        self.images = data.train.take(self.calibration)
        self.history = History()
        self.trials: list[dict[str, Any]] = []

    def run(self, write_trials: Callable[[list[dict[str, Any]]], None] = lambda rows: None) -> QuantizationResult:
        """Make the file and check it against the model on validation. Equal models, data and seeds give equal bytes.

        `write_trials` receives the rows of the search for `max_drop`, also when the search fails. Raises InputError
        when no layer can be converted, or when the file strays from the model.
        """
        try:
            return self._run()
        finally:
            write_trials(self.trials)

    def _run(self) -> QuantizationResult:
        method = self.params.method
        if method == "none":
            layers: Collection[str] = ()
            excluded: list[str] = []
            reference = self.model
            content = export_onnx(self.model, self.session.dataset).SerializeToString(deterministic=True)
        else:
            converter = self._make_converter()
            layers = converter.layers
            if not layers:
                kind = "linear layer" if method in LINEAR else "layer with weights"
                raise bad_param("quantize.method", method, f"the network has no {kind} that it could convert")
            excluded = self._control_accuracy(converter)
            reference = converter.reference(excluded)
            content = self._serialize(converter, excluded)
        error, drop = self.check(content, reference)
        macs = count_macs(self.model, self.session.dataset.blank(1))
        rows = coverage.rows(graph.layers(content), layers, excluded, method, macs)
        return QuantizationResult(content, error, drop, rows, self._calibration_rows(), self.history)

    def check(self, content: bytes, reference: nn.Module) -> tuple[float, float]:
        """Return the logit error and the accuracy drop of the file on validation, by `check_parity`.

        Logs a warning on a CPU where sums of 8-bit products saturate. Raises InputError beyond the limits.
        """
        params, data = self.params, self.session.dataset
        if params.method in ("dynamic", "static", "qat") and int8_saturates() and not params.reduce_range:
            rule = "quantize.reduce_range: true avoids it"
            self.session.log(f"warning: sums of 8-bit products saturate on this CPU (no VNNI): {rule}")
        before, expected = (torch_logits(model, data, data.val, BATCH_SIZE) for model in (self.model, reference))
        found = onnx_logits(open_session(content, self.session.threads), data.val, BATCH_SIZE)
        return check_parity(expected, found, data.val, params, before)

    def _make_converter(self) -> Converter:
        data, images = self.session.dataset, self.images.images
        qat = import_training(self.params)
        if qat is None:
            return make_post_training_converter(self.model, data, images, self.params)
        converter = qat.QATConverter(self.model, data, images, self.params.reduce_range)
        if converter.layers:
            self.history = self.session.checkpointer.track("history", self.history)
            self.history.record_and_log(converter.train(self.fine_tune), self.params.epochs, self.session.log)
        return converter

    def _serialize(self, converter: Converter, excluded: Collection[str]) -> bytes:
        model = converter.convert(excluded)
        finish(model, self.session.dataset)
        return model.SerializeToString(deterministic=True)

    def _control_accuracy(self, converter: Converter) -> list[str]:
        """Search the layers that must stay float32, so that the file loses at most `max_drop` on validation."""
        max_drop, data = self.params.max_drop, self.session.dataset
        if max_drop is None:
            return []

        def score_on(split: Split, model: nn.Module) -> tuple[float, Score]:
            expected = torch_logits(model, data, split, BATCH_SIZE)

            def score(excluded: Collection[str]) -> tuple[float, float]:
                content = self._serialize(converter, excluded)
                found = onnx_logits(open_session(content, self.session.threads), split, BATCH_SIZE)
                return accuracy(found, split), logit_error(expected, found)

            return accuracy(expected, split), score

        before, score = score_on(data.val, self.model)
        _, probe = score_on(self.images, converter.reference(converter.layers))
        search = AccuracyControl(converter.layers, score, probe, self.session.checkpointer)
        least, self.trials = before - max_drop - ACCURACY_SLACK, search.rows
        excluded = search.search(least)
        left = self.trials[-1]["val_accuracy"]
        if left < least:
            rule = f"cannot be met: with every layer in float32 the file still loses {before - left:.3g}"
            raise bad_param("quantize.max_drop", max_drop, rule)
        return excluded

    def _calibration_rows(self) -> list[dict[str, Any]]:
        """List the images that ranges or errors of single layers come from; none where nothing looked at them."""
        used = self.params.method in ("static", "qat") or self.trials
        return describe_images(self.session.dataset, self.calibration) if used else []
