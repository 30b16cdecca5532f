"""Run every line of a CSV as a DVC experiment on the workers of a dask cluster.

    make sweep FILE=sweeps/amounts.csv

Exit code 1: bad input, or an experiment failed. The same command runs what is missing.

Reads   HEAD, the file
Writes  DVC experiments, sweeps/results/NAME.csv, and work/sweep with the output of experiments that failed
"""

import argparse
import signal
import sys
from pathlib import Path

from lightweight.execution.process import run_stage
from tools.sweep.run import Settings, run_sweep


def main() -> None:
    parser = argparse.ArgumentParser(prog="make sweep", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, help="a CSV such as sweeps/amounts.csv")
    parser.add_argument("--scheduler", help="address of a running scheduler of dask, such as tcp://10.0.0.1:8786")
    parser.add_argument("--workers", type=int, help="workers on this machine; by default one per core")
    options = parser.parse_args()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # workers are stopped and their folders removed then, too
        signal.signal(ending, signal.default_int_handler)
    try:
        complete = run_sweep(Settings(**vars(options)), lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("Interrupted: the same command runs what is missing", flush=True)
        sys.exit(130)
    sys.exit(not complete)


if __name__ == "__main__":
    run_stage(main)
