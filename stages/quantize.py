"""Quantize: make the ONNX file that ships, and check that it agrees with the recalibrated model.

Reads   params.yaml, data/prepared.safetensors, models/recalibrated.safetensors, with qat the file of train.teacher
Writes  models/optimized.onnx; plots/coverage.csv, calibration.csv, fallback.csv, trials.csv, rounding.csv, qat.csv
Resumes from work/quantize
"""

from functools import partial
from pathlib import Path

from lightweight.checkpointing.session import open_session
from lightweight.core.files import write_bytes, write_tables
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset_file import load_dataset
from lightweight.execution.determinism import configure_torch, project_root, work_folder
from lightweight.execution.launch import run_parallel_stage
from lightweight.networks.model_file import load_model
from lightweight.quantization.converter import import_training
from lightweight.quantization.params import QuantizeParams
from lightweight.quantization.quantizer import Quantizer
from lightweight.training.loop import FineTune
from lightweight.training.loss import load_teacher
from lightweight.training.params import TrainParams

PARAMS, PREPARED, PLOTS = Path("params.yaml"), Path("data/prepared.safetensors"), Path("plots")
RECALIBRATED, OPTIMIZED, ROOT = Path("models/recalibrated.safetensors"), Path("models/optimized.onnx"), project_root()


def main() -> None:
    params = load_params(PARAMS, **GENERAL, train=TrainParams, quantize=QuantizeParams)
    configure_torch(params)
    data, log = load_dataset(PREPARED), partial(print, flush=True)
    source, train = load_model(RECALIBRATED, data), params.train.for_quantization(params.quantize.trains)
    import_training(params.quantize)
    teacher, files = load_teacher(train, ROOT, data), [PREPARED, RECALIBRATED, *train.files(ROOT)]
    with open_session(work_folder() / "quantize", params, data, files, OPTIMIZED, log=log) as session:
        fine_tune = FineTune(session, train, params.quantize.lr, params.quantize.epochs, teacher)
        result = Quantizer(source, params.quantize, session, fine_tune).run(partial(write_tables, PLOTS))
        write_bytes(OPTIMIZED, result.content)
        write_tables(PLOTS, result.tables())
    print(f"{result.describe(params.quantize.method)}  -> {OPTIMIZED}")


if __name__ == "__main__":
    run_parallel_stage(main, PARAMS, print)
