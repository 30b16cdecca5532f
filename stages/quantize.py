"""Quantize: the ONNX file that ships, which must agree with the model it was made from.

Reads   params.yaml, data/prepared.safetensors, models/recalibrated.safetensors
Writes  models/optimized.onnx, plots/coverage.csv, plots/calibration.csv, plots/fallback.csv, plots/qat.csv
Resumes from work/quantize
"""

from functools import partial
from pathlib import Path

from lightweight.checkpointing.checkpointer import resumable
from lightweight.core.determinism import configure_torch, project_root
from lightweight.core.files import write_bytes, write_csv
from lightweight.core.params import Seed, Threads, load_params
from lightweight.core.process import run_stage
from lightweight.dataset import load_dataset
from lightweight.macs import count_macs
from lightweight.networks.model_file import load_model
from lightweight.onnx import coverage, graph
from lightweight.quantization import accuracy_control as fallback
from lightweight.quantization import calibration
from lightweight.quantization.quantizer import QuantizeParams, Quantizer, load_qat
from lightweight.training import history
from lightweight.training.loop import TrainParams, train
from lightweight.training.loss import load_teacher
from lightweight.training.optimizer import make_schedule

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
RECALIBRATED = Path("models/recalibrated.safetensors")
OPTIMIZED = Path("models/optimized.onnx")
PLOTS = Path("plots")
ROOT = project_root()
WORK = ROOT / "work"


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, train=TrainParams, quantize=QuantizeParams)
    configure_torch(params.threads, params.seed)
    data, chosen = load_dataset(PREPARED), params.quantize
    model = load_model(RECALIBRATED, data).model
    files, log, how = [PREPARED, RECALIBRATED], partial(print, flush=True), {}
    if chosen.method == "qat":
        load_qat()  # before a digest is made of the code that is loaded
        files += params.train.files(ROOT)
        how = {"params": params.train.model_copy(update={"precision": "fp32", "freeze": []}), "lr": chosen.lr}
        how |= {"schedule": partial(make_schedule, "cosine", params.train, chosen.epochs)}
        how |= {"teacher": load_teacher(params.train, ROOT, data), "epochs": range(1, chosen.epochs + 1)}
    with resumable(WORK, "quantize", vars(params), files, OPTIMIZED, log) as checkpointer:
        fine_tune = partial(train, dataset=data, seed=params.seed, checkpointer=checkpointer, **how)
        quantizer = Quantizer(model, data, chosen, params.seed, params.threads, fine_tune, checkpointer, log)
        try:
            content = quantizer.run()
            error, drop = quantizer.check(content)
        finally:  # the trials of a search that failed say why
            write_csv(PLOTS / "fallback.csv", fallback.COLUMNS, quantizer.rows)
        macs, found = count_macs(model, data.blank(1)), graph.layers(content)
        layers = coverage.rows(found, quantizer.layers, quantizer.excluded, chosen.method, macs)
        write_bytes(OPTIMIZED, content)
        write_csv(PLOTS / "coverage.csv", coverage.COLUMNS, layers)
        write_csv(PLOTS / "calibration.csv", calibration.COLUMNS, quantizer.calibrated())
        write_csv(PLOTS / "qat.csv", history.COLUMNS, quantizer.history.table())
    print(
        *filter(None, [coverage.warning(layers)]), f"quantize  {chosen.method}  {coverage.describe(layers)}", sep="\n"
    )
    print(f"quantize  logit error {error:.3%}  val accuracy drop {drop:.2%}  -> {OPTIMIZED}")


if __name__ == "__main__":
    run_stage(main)
