"""Remove channels by the library in equal shares, and let the weights that stay make up for those that go."""

import sys
from pathlib import Path

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.core.params import load_params
from lightweight.data.dataset_file import load_dataset
from lightweight.macs import count_macs
from lightweight.networks.model_file import load_model
from lightweight.onnx.checksum import serialize
from lightweight.onnx.export import export_onnx
from lightweight.pruning.allocation import bisect
from lightweight.pruning.groups import find_groups
from lightweight.pruning.importance import Importance
from lightweight.pruning.params import PruneParams
from lightweight.pruning.schedule import PruningState, run_schedule

PARAMS = Path(__file__).parents[3] / "params.yaml"
given, result = Path(sys.argv[1]), Path(sys.argv[2])
data = load_dataset(given / "given.safetensors")
changes = {"method": "structured", "importance": "l1", "layers": "both", "scope": "layer", "epochs": 0}
changes |= {"schedule": "one_shot", "repair": True, "images": 512, "exclude": []}
params = load_params(PARAMS, prune=PruneParams).prune.model_copy(update=changes)


def prune(amount, repair):
    model = load_model(given / "model.safetensors", data).model
    own = params.model_copy(update={"repair": repair})
    groups = find_groups(model, data.blank(1), own, "prune")
    state = PruningState(model, groups, own, Importance(own.importance, data, own.images, 0))
    run_schedule(state, amount, lambda number, each_step: None, Checkpointer())
    return model


goal = 0.6 * count_macs(load_model(given / "model.safetensors", data).model, data.blank(1))
amount = bisect(lambda share: count_macs(prune(share, False), data.blank(1)) > goal, low=0.0, high=1.0, steps=8)[1]
(result / "compressed.onnx").write_bytes(serialize(export_onnx(prune(amount, True), data)))
