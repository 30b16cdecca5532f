"""Compact: make the smallest file of the recalibrated model, of entropy-coded integers; empty unless it is enabled.

Reads   params.yaml, data/prepared.safetensors, models/original.safetensors, models/recalibrated.safetensors
Writes  models/compact.lwz, plots/compact.csv, plots/compact_tensors.csv
Resumes from work/compact
"""

from functools import partial
from pathlib import Path

from lightweight.batchnorm import BnUpdateParams
from lightweight.checkpointing.session import open_session
from lightweight.compaction.compactor import Compactor
from lightweight.compaction.params import CompactParams
from lightweight.core.files import write_bytes, write_tables
from lightweight.core.params import GENERAL, load_params
from lightweight.data.dataset_file import load_dataset
from lightweight.execution.determinism import configure_torch, project_root, work_folder
from lightweight.execution.launch import run_parallel_stage
from lightweight.networks.model_file import load_model
from lightweight.training.loop import FineTune
from lightweight.training.loss import load_teacher
from lightweight.training.params import TrainParams

PARAMS, PREPARED, PLOTS, ROOT = Path("params.yaml"), Path("data/prepared.safetensors"), Path("plots"), project_root()
ORIGINAL, RECALIBRATED = (Path(f"models/{name}.safetensors") for name in ("original", "recalibrated"))
COMPACT = Path("models/compact.lwz")


def main() -> None:
    params = load_params(PARAMS, **GENERAL, train=TrainParams, bn_update=BnUpdateParams, compact=CompactParams)
    data, train = load_dataset(PREPARED).to(configure_torch(params)), params.compact.training(params.train)
    source, original = load_model(RECALIBRATED, data).model, load_model(ORIGINAL, data).model
    teacher = original if params.compact.distill else load_teacher(train, ROOT, data)
    files, log = [PREPARED, ORIGINAL, RECALIBRATED, *train.files(ROOT)], partial(print, flush=True)
    with open_session(work_folder() / "compact", params, data, files, COMPACT, log=log) as session:
        fine_tune = FineTune(session, train, params.compact.lr, params.compact.epochs, teacher)
        result = Compactor(source, params.compact, params.bn_update, session).run(fine_tune)
        write_bytes(COMPACT, result.content)
        write_tables(PLOTS, result.tables())
    print(f"compact  {result.describe()}  -> {COMPACT}")


if __name__ == "__main__":
    run_parallel_stage(main, PARAMS, print)
