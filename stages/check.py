"""Check: validate every section of params.yaml before any stage spends time.

Reads   params.yaml
Writes  data/checked
"""

from pathlib import Path

from lightweight.batchnorm import BnUpdateParams
from lightweight.core.files import write_text
from lightweight.core.params import GENERAL, load_all_params
from lightweight.evaluation.benchmark import BenchmarkParams
from lightweight.evaluation.scores import EvaluateParams
from lightweight.execution.process import run_stage
from lightweight.preparation.params import PrepareParams
from lightweight.pruning.params import PruneParams
from lightweight.quantization.params import QuantizeParams
from lightweight.sensitivity import SensitivityParams
from lightweight.swa import SwaParams, remaining_epochs
from lightweight.training.params import TrainParams

PARAMS = Path("params.yaml")
CHECKED = Path("data/checked")


def main() -> None:
    params = load_all_params(
        PARAMS, **GENERAL, prepare=PrepareParams, train=TrainParams, swa=SwaParams, prune=PruneParams,
        sensitivity=SensitivityParams, bn_update=BnUpdateParams, quantize=QuantizeParams, evaluate=EvaluateParams,
        benchmark=BenchmarkParams,
    )  # fmt: skip
    remaining_epochs(params.swa, params.train.epochs, params.train.snapshots)
    write_text(CHECKED, "params.yaml is valid\n")
    print(f"check  {len(vars(params))} sections  -> {CHECKED}")


if __name__ == "__main__":
    run_stage(main)
