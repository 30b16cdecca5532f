"""Quantize: the ONNX file that ships, which must agree with the model it was made from.

Reads   params.yaml, data/prepared.safetensors, models/recalibrated.safetensors
Writes  models/optimized.onnx, plots/coverage.csv
"""

from dataclasses import asdict
from pathlib import Path

from lightweight import graph
from lightweight.checkpoint import load_checkpoint
from lightweight.command import run
from lightweight.data import load_dataset
from lightweight.export import export_onnx
from lightweight.files import write_bytes, write_csv
from lightweight.inference import onnx_logits, open_session, torch_logits
from lightweight.params import Seed, Threads, load_params
from lightweight.quantization import QuantizeParams, check_parity, quantize
from lightweight.runtime import start

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared.safetensors")
RECALIBRATED = Path("models/recalibrated.safetensors")
OPTIMIZED = Path("models/optimized.onnx")
COVERAGE = Path("plots/coverage.csv")
BATCH_SIZE = 256


def main() -> None:
    params = load_params(PARAMS, seed=Seed, threads=Threads, quantize=QuantizeParams)
    start(params.threads, params.seed)
    data = load_dataset(PREPARED)
    model = load_checkpoint(RECALIBRATED, data).model
    content = quantize(export_onnx(model, data), params.quantize, data, params.seed)
    expected = torch_logits(model, data, data.val, BATCH_SIZE)
    found = onnx_logits(open_session(content, params.threads), data.val, BATCH_SIZE)
    error, drop = check_parity(expected, found, data.val, params.quantize)
    layers = graph.layers(content)
    write_bytes(OPTIMIZED, content)
    write_csv(COVERAGE, asdict(layers[0]), map(asdict, layers))
    parity = f"logit error {error:.3%}  val accuracy drop {drop:.2%}"
    print(
        f"quantize  {params.quantize.method}  {graph.int8_share(layers):.0%} of MACs in int8  {parity}  -> {OPTIMIZED}"
    )


if __name__ == "__main__":
    run(main)
