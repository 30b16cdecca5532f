"""A `dvc exp run` of no time: it commits params and made-up metrics as an experiment, as the values of params say.

With `prune.importance=taylor` it kills its worker, the first time; with `random` it fails, the first time.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dvc.utils.hydra import apply_overrides

from lightweight.core.yaml import read_yaml


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


parser = argparse.ArgumentParser()
parser.add_argument("log", type=Path)
parser.add_argument("--name")
parser.add_argument("--set-param", action="append")
options = parser.parse_args()


def note(event: str) -> None:
    with options.log.open("a") as file:
        file.write(f"{event} {options.name} {Path.cwd().parent.name} {os.getpid()}\n")


baseline = git("rev-parse", "HEAD")
before = options.log.read_text() if options.log.exists() else ""
first = f"begin {options.name} " not in before
note("begin")
apply_overrides("params.yaml", options.set_param)
params = read_yaml(Path("params.yaml"))
time.sleep(0.5)
if first and params["prune"]["importance"] == "taylor":
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
if first and params["prune"]["importance"] == "random":
    sys.exit("error: params.yaml: prune.importance: bad luck\nERROR: failed to reproduce 'prune'")
Path("metrics").mkdir(exist_ok=True)
Path("metrics/optimized.json").write_text(json.dumps({"accuracy": params["prune"]["amount"], "size_bytes": 1234}))
git("add", ".")
commit = git("commit-tree", git("write-tree"), "-p", baseline, "-m", options.name)
git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{options.name}", commit)
note("end")
