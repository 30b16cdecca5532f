"""Check: validate every section of params.yaml, and try out what a run will need, before any stage spends time.

Reads   params.yaml, the image folder of prepare.path, the files of train.weights and train.teacher
Writes  data/checked
"""

from pathlib import Path
from types import SimpleNamespace

from lightweight.batchnorm import BnUpdateParams
from lightweight.compaction.params import CompactParams
from lightweight.core.files import write_text
from lightweight.core.params import GENERAL, load_all_params
from lightweight.evaluation.benchmark import BenchmarkParams
from lightweight.evaluation.scores import EvaluateParams
from lightweight.execution.determinism import project_root
from lightweight.execution.process import run_stage
from lightweight.preflight import look_ahead
from lightweight.preparation.params import PrepareParams
from lightweight.pruning.params import PruneParams
from lightweight.quantization.params import QuantizeParams
from lightweight.sensitivity import SensitivityParams
from lightweight.swa import SwaParams, remaining_epochs
from lightweight.training.params import TrainParams

PARAMS, CHECKED, OUTPUTS = Path("params.yaml"), Path("data/checked"), (Path("data/prepared"), Path("models"))


def read_params(path: Path = PARAMS) -> SimpleNamespace:
    params = load_all_params(path, **GENERAL, prepare=PrepareParams, train=TrainParams, swa=SwaParams,
        prune=PruneParams, sensitivity=SensitivityParams, bn_update=BnUpdateParams, quantize=QuantizeParams,
        compact=CompactParams, evaluate=EvaluateParams, benchmark=BenchmarkParams)  # fmt: skip
    remaining_epochs(params.swa, params.train.epochs, params.train.snapshots)
    return params


def main() -> None:
    params = read_params()
    lines = look_ahead(params.prepare, params.train, project_root(), OUTPUTS)
    write_text(CHECKED, "params.yaml is valid\n")
    print(*lines, f"check  {len(vars(params))} sections  -> {CHECKED}", sep="\n")


if __name__ == "__main__":
    run_stage(main)
