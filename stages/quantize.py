"""Quantize: the ONNX file that ships, which must agree with the model it was made from.

Reads   params.yaml, data/prepared.safetensors, models/recalibrated.safetensors
Writes  models/optimized.onnx, plots/coverage.csv, plots/calibration.csv, plots/fallback.csv, plots/qat.csv
Resumes from work/quantize
"""

from functools import partial
from pathlib import Path

from lightweight import calibration, coverage, fallback, graph, history
from lightweight.checkpoint import load_checkpoint
from lightweight.command import run
from lightweight.data import load_dataset
from lightweight.distillation import load_teacher
from lightweight.files import write_bytes, write_csv
from lightweight.macs import count_macs
from lightweight.optimization import make_schedule
from lightweight.params import Seed, Threads, load_params
from lightweight.quantization import QuantizeParams, Quantizer, load_qat
from lightweight.resuming import resumable
from lightweight.runtime import start, workspace
from lightweight.training import TrainParams, train

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
RECALIBRATED = Path("models/recalibrated.safetensors")
OPTIMIZED = Path("models/optimized.onnx")
PLOTS = Path("plots")
ROOT = workspace()
WORK = ROOT / "work"


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, train=TrainParams, quantize=QuantizeParams)
    start(params.threads, params.seed)
    data, chosen = load_dataset(PREPARED), params.quantize
    model = load_checkpoint(RECALIBRATED, data).model
    files, say, how = [PREPARED, RECALIBRATED], partial(print, flush=True), {}
    if chosen.method == "qat":
        load_qat()  # before a digest is made of the code that is loaded
        files += params.train.files(ROOT)
        how = {"params": params.train.model_copy(update={"precision": "fp32", "freeze": []}), "lr": chosen.lr}
        how |= {"schedule": partial(make_schedule, "cosine", params.train, chosen.epochs)}
        how |= {"teacher": load_teacher(params.train, ROOT, data), "epochs": range(1, chosen.epochs + 1)}
    with resumable(WORK, "quantize", vars(params), files, OPTIMIZED, say) as saved:
        fine_tune = partial(train, dataset=data, seed=params.seed, saved=saved, **how)
        quantizer = Quantizer(model, data, chosen, params.seed, params.threads, fine_tune, saved, say)
        try:
            content = quantizer.run()
            error, drop = quantizer.check(content)
        finally:  # the trials of a search that failed say why
            write_csv(PLOTS / "fallback.csv", fallback.COLUMNS, quantizer.rows)
        macs, found = count_macs(model, data.blank(1)), graph.layers(content)
        layers = coverage.rows(found, quantizer.layers, quantizer.kept, chosen.method, macs)
        write_bytes(OPTIMIZED, content)
        write_csv(PLOTS / "coverage.csv", coverage.COLUMNS, layers)
        write_csv(PLOTS / "calibration.csv", calibration.COLUMNS, quantizer.calibrated())
        write_csv(PLOTS / "qat.csv", history.COLUMNS, quantizer.history.table())
    print(
        *filter(None, [coverage.warning(layers)]), f"quantize  {chosen.method}  {coverage.describe(layers)}", sep="\n"
    )
    print(f"quantize  logit error {error:.3%}  val accuracy drop {drop:.2%}  -> {OPTIMIZED}")


if __name__ == "__main__":
    run(main)
