"""Every recipe gives the same bytes in another process, folder, locale, time zone, and under another name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save_file

from lightweight.networks.factory import build
from tests.contract import ROOT
from tests.faults.killing import outputs
from tests.workspace import Workspace

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
RUN = """
import importlib, os, sys
os.umask(int(sys.argv[1], 8))
for name in sys.argv[2:]:
    importlib.import_module(f"stages.{name}").main()
"""
HERE = {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8", "USER": "one", "LOGNAME": "one"}
THERE = {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C", "USER": "other", "LOGNAME": "other"}


def few_images(recipe: str, folder: Path) -> None:
    """The recipe in `folder`, on 24 pictures of noise, for two epochs where it trains."""
    random = np.random.default_rng(0)
    for index in range(24):
        path = folder / f"photos/{'cat' if index % 2 else 'dog'}/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    params = YAML(typ="safe").load(ROOT / f"recipes/{recipe}.yaml")
    params["prepare"] |= {"dataset": "folder", "path": "photos"}
    params["train"] |= {"epochs": min(params["train"]["epochs"], 2), "batch_size": 8}
    params["swa"]["start"] = params["swa"]["start"] and 1
    params["prune"]["epochs"] = min(params["prune"]["epochs"], 1)
    params["quantize"] |= {"calibration_images": 8, "max_logit_error": 100.0, "max_accuracy_drop": 1.0}
    params["benchmark"] |= {"batch_sizes": [1], "rounds": 10}
    (folder / "params.yaml").write_text(json.dumps(params))
    weights = params["train"]["weights"]
    if weights:
        torch.manual_seed(0)
        path = folder / weights
        if published := weights.startswith("IMAGENET1K"):
            path = folder / "hub/checkpoints/efficientnet_b0_rwightman-7f5810bc.pth"
        shape = {"channels": 3, "image_size": 64, "num_classes": 1000 if published else 2}
        model = build(params["train"]["network"], **shape, small_stem=params["train"]["small_stem"])
        path.parent.mkdir(parents=True)
        save = save_file if path.suffix == ".safetensors" else torch.save
        save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


def run(recipe: str, folder: Path, mask: str, **environment: str) -> dict[str, str]:
    """SHA-256 of every output."""
    few_images(recipe, folder)
    environment |= {"TORCH_HOME": str(folder), "HOME": str(folder.parent), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RUN, mask, *STAGES]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder / "dvc.lock").touch()
    return outputs(Workspace(folder))


@pytest.mark.slow  # half a minute each, two minutes the largest; the default pipeline is in test_end_to_end
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_repeats_every_byte(recipe, tmp_path):
    first = run(recipe, tmp_path / "one", "022", **HERE)
    second = run(recipe, tmp_path / "another place", "077", **THERE)
    assert len(first) >= 20
    assert {name for name in first if first[name] != second.get(name)} == set()
    assert first.keys() == second.keys()
