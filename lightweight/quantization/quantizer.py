"""The quantizer makes the ONNX file that ships: weights and activations in fewer bits, as far as accuracy allows."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from lightweight.checkpointing.session import Session
from lightweight.core.errors import bad_param
from lightweight.core.files import Table
from lightweight.core.machine import int8_saturates
from lightweight.data.dataset import Split
from lightweight.data.sampling import balanced_sample
from lightweight.fallback import ladder
from lightweight.fallback.accuracy_control import COLUMNS, AccuracyControl, Score
from lightweight.fallback.exclusion import KEY, match_layers
from lightweight.gram.measure import IMAGES_PER_BATCH
from lightweight.macs import count_macs
from lightweight.networks.model_file import ModelFile
from lightweight.networks.validation import ACCURACY_SLACK, limit_batch
from lightweight.onnx.checksum import serialize
from lightweight.onnx.coverage import LayerCoverage, measure_coverage, warning
from lightweight.onnx.export import finalize_metadata
from lightweight.onnx.graph import list_layers
from lightweight.onnx.logits import onnx_logits, torch_logits
from lightweight.onnx.session import make_inference_session
from lightweight.quantization.calibration import describe_images
from lightweight.quantization.converter import Converter, make_converter, plan_rounding
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.parity import accuracy, check_parity, logit_error
from lightweight.quantization.post_training import PostTrainingConverter
from lightweight.quantization.result import QuantizationResult
from lightweight.rounding.rounder import Rounder, RoundingPlan
from lightweight.training.history import FineTuner, History

BATCH_SIZE = 256


class Quantizer:
    """Convert one model by section `quantize`; `fine_tune` trains it where the method is quantization-aware training.

    `trials` are the rows of the search for `max_drop`, also after a search that failed.
    """

    def __init__(self, source: ModelFile, params: QuantizeParams, session: Session, fine_tune: FineTuner) -> None:
        self.model, self.params, self.session, self.fine_tune = source.model, params, session, fine_tune
        data = session.dataset
        self.batch_size = limit_batch(BATCH_SIZE, data)
        self.calibration = balanced_sample(data.train.labels, params.calibration_images, session.seed)
        self.images = data.train.take(self.calibration)
        self.history = History()
        self.rounder = Rounder(RoundingPlan("nearest", False, 127), session.checkpointer)
        self.trials: list[dict[str, Any]] = []
        self.named: list[str] = []
        self.steps: list[dict[str, Any]] = []

    def run(self, write_tables: Callable[[dict[str, Table]], None] = lambda tables: None) -> QuantizationResult:
        """Make the file and check it against the model on validation. Equal models, data and seeds give equal bytes.

        `write_tables` receives the table of the search for `max_drop`, also when the search fails. Raises InputError
        when no layer can be converted, or when the file strays from the model.
        """
        try:
            if self.params.method == "auto":
                self._choose_settings()
            return self.quantize(self.make_converter())
        finally:
            write_tables({"fallback": (COLUMNS, self.trials), "trials": (ladder.COLUMNS, self.steps)})

    def _choose_settings(self) -> None:
        """Make files by one means after another, as `Ladder` does, and take the settings of the chosen one."""
        data, threads, budget = self.session.dataset, self.session.threads, self.params.max_drop
        expected = torch_logits(self.model, data, data.val, self.batch_size)

        def attempt(settings: Mapping[str, Any]) -> tuple[float, float, int]:
            self.params = self.params.model_copy(update={"method": "static", **settings})
            content = self.serialize(self.make_converter(), [])
            actual = onnx_logits(make_inference_session(content, threads), data.val, self.batch_size)
            return accuracy(actual, data.val), logit_error(expected, actual), len(content)

        search = ladder.Ladder(attempt, self.session.checkpointer, self.session.log)
        assert budget is not None
        self.steps = search.rows
        chosen = search.climb(self.minimum(accuracy(expected, data.val), budget))
        self.steps = search.rows
        self.params = self.params.model_copy(update={"method": "static", **chosen})

    def minimum(self, before: float, max_drop: float) -> float:
        """Compute the least accuracy of a file that loses at most `max_drop`."""
        return before - max_drop - ACCURACY_SLACK

    def make_converter(self) -> Converter:
        """Make the converter of the method, calibrated and trained. Raises InputError when it can convert no layer."""
        method, session = self.params.method, self.session
        converter = make_converter(self.model, session.dataset, self.images.images[:], self.params)
        if method != "none" and not converter.layers:
            kind = "linear layer" if method == "dynamic" else "layer with weights"
            raise bad_param("quantize.method", method, f"the network has no {kind} that it could convert")
        self.named = match_layers(self.params.exclude, converter.weighted)
        converter.spare(self.named)
        if method != "none" and not converter.layers:
            raise bad_param(KEY, self.params.exclude, "names every layer; quantize.method: none converts none")
        if self.params.trains:
            self._warn_of_low_coverage(converter)
            self.history = session.checkpointer.track("history", self.history)
            self.history.record_and_log(converter.train(self.fine_tune), self.params.epochs, session.log)
        self.rounder = Rounder(plan_rounding(converter, self.params), session.checkpointer)
        if isinstance(converter, PostTrainingConverter):
            if self.params.equalize and self.params.method in ("static", "int4"):
                session.log(converter.equalized.describe())
            factors = converter.equalized.input_factors
            self.rounder.fit(self.model, self.batches, converter.model, converter.convert([]), factors)
        return converter

    def batches(self) -> Iterator[Tensor]:
        """Yield the calibration images in batches, normalised: (N, C, H, W)."""
        for images, _ in self.session.dataset.batches(self.images, IMAGES_PER_BATCH):
            yield images

    def quantize(self, converter: Converter) -> QuantizationResult:
        """Convert the model except for the layers that `max_drop` excludes, check the file and explain it."""
        excluded = self._control_accuracy(converter)
        content = self.serialize(converter, excluded)
        error, drop = self.check(content, converter.reference(excluded))
        coverage = self._coverage(content, converter, excluded)
        tables = {"calibration": self._calibration_rows(), "rounding": self.rounder.rows}
        return QuantizationResult(content, error, drop, excluded, coverage, self.history, **tables)

    def serialize(self, converter: Converter, excluded: Collection[str]) -> bytes:
        """Make the bytes of the file in which the excluded layers stay float32."""
        model = converter.convert(excluded)
        self.rounder.write(model)
        finalize_metadata(model, self.session.dataset, self.params.license)
        return serialize(model)

    def check(self, content: bytes, reference: nn.Module) -> tuple[float, float]:
        """Return the logit error and the accuracy drop of the file on validation, by `check_parity`.

        Logs a warning on a CPU where sums of 8-bit products saturate. Raises InputError beyond the limits.
        """
        params, data = self.params, self.session.dataset
        if params.method in ("dynamic", "static", "qat") and int8_saturates() and params.reduce_range is False:
            rule = "quantize.reduce_range: auto avoids it"
            self.session.log(f"Warning: sums of 8-bit products saturate on this CPU (no VNNI): {rule}")
        before, expected = (torch_logits(model, data, data.val, self.batch_size) for model in (self.model, reference))
        actual = onnx_logits(make_inference_session(content, self.session.threads), data.val, self.batch_size)
        return check_parity(expected, actual, data.val, params, before)

    def _coverage(self, content: bytes, converter: Converter, excluded: Collection[str]) -> list[LayerCoverage]:
        macs = count_macs(self.model, self.session.dataset.blank(1))
        layers, changes = list_layers(content), converter.changes
        return measure_coverage(layers, converter.layers, excluded, self.params.method, macs, changes, self.named)

    def _warn_of_low_coverage(self, converter: Converter) -> None:
        """Log before the training which layers would stay in float32 after it, if these are many."""
        if line := warning(self._coverage(self.serialize(converter, []), converter, [])):
            self.session.log(line)

    def _control_accuracy(self, converter: Converter) -> list[str]:
        """Search the layers that must stay float32, so that the file loses at most `max_drop` on validation."""
        max_drop, data = self.params.max_drop, self.session.dataset
        if max_drop is None or not converter.layers:
            return []

        def score_on(split: Split, model: nn.Module) -> tuple[float, Score]:
            expected = torch_logits(model, data, split, self.batch_size)

            def score(excluded: Collection[str]) -> tuple[float, float]:
                session = make_inference_session(self.serialize(converter, excluded), self.session.threads)
                actual = onnx_logits(session, split, self.batch_size)
                return accuracy(actual, split), logit_error(expected, actual)

            return accuracy(expected, split), score

        before, score = score_on(data.val, self.model)
        _, probe = score_on(self.images, converter.reference(converter.layers))
        search = AccuracyControl(converter.layers, score, probe, self.session.checkpointer)
        min_accuracy, self.trials = self.minimum(before, max_drop), search.rows
        excluded = search.search(min_accuracy)
        after = self.trials[-1]["val_accuracy"]
        if after < min_accuracy:
            rule = f"cannot be met: with every layer in float32 the file still loses {before - after:.3g}"
            raise bad_param("quantize.max_drop", max_drop, rule)
        return excluded

    def _calibration_rows(self) -> list[dict[str, Any]]:
        """List the training images that ranges, rounding or errors of layers come from; none if none were needed."""
        used = self.params.method in ("static", "int4", "qat") or self.rounder.rounded or self.trials
        return describe_images(self.session.dataset, self.calibration) if used else []
