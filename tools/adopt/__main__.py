"""Write a params.yaml that only compresses a trained network, after a look at how it scores on your images.

    python -m tools.adopt --network torchvision/resnet18 --weights IMAGENET1K_V1 --images photos
    python -m tools.adopt --network timm/resnet18.a1_in1k --weights mine.safetensors --images photos
    python -m tools.adopt --module nets:build --weights mine.pth --images photos --set prepare.image_size=64 ...

Exit code 1: the weights do not fit the network or the images, or score no better than chance. Nothing is written then.

Reads   recipes/folder.yaml, the images, the weights
Writes  params.yaml, or what --output names
"""

import argparse
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from lightweight.core.errors import InputError
from lightweight.core.files import write_text
from lightweight.evaluation.statistics import wilson_interval
from lightweight.execution.process import run_stage
from lightweight.networks.factory import PUBLISHED
from tools.adopt.params_file import check_replaceable, format_value, parse_changes, read_text, set_values
from tools.adopt.published import find_settings
from tools.adopt.trial import Trial, try_out

TEMPLATE = Path("recipes/folder.yaml")
HEAD = "# Only compresses {}: `python -m tools.adopt` wrote this file. docs/adopt.md says what to change.\n\n"
ONLY_COMPRESS = {
    "train.epochs": "0",
    "swa.start": "null",
    "prune.amount": "0",
    "prune.repair": "true",
    "sensitivity.amount": "null",
    "bn_update.num_images": "0",
    "quantize.method": "static",
    "quantize.reduce_range": "auto",
    "quantize.rounding": "gptq",
    "quantize.bias_correction": "true",
}


def main() -> None:
    options = read_options()
    say = partial(print, flush=True)
    network = options.network or options.module
    check_replaceable(options.output, options.force)
    chosen = parse_changes(options.set)
    given = {"prepare.path": options.images, "train.network": network, "train.weights": options.weights}
    own = ONLY_COMPRESS | {key: format_value(value) for key, value in given.items()}
    check_chosen(chosen, own, options.output)
    settings, origin = find_settings(network, options.weights, chosen)
    _, _, template = TEMPLATE.read_text().partition("\n\n")  # without its head
    text = HEAD.format(network) + set_values(template, settings | own | chosen)
    say(f"adopt  {origin}")
    trial = try_out(read_text(text), say)
    check_score(trial)
    right, images = sum(trial.right), sum(trial.images)
    low, high = wilson_interval(right, images)
    say(f"adopt  accuracy {right / images:.1%} [{low:.1%}, {high:.1%}] on {images} of these images")
    replaced = " in place of the old one" if options.output.exists() else ""
    write_text(options.output, text)
    say(f"adopt  only compresses: no training, no pruning, static int8  -> {options.output}{replaced}")
    copy = "" if options.output == Path("params.yaml") else f"cp {options.output} params.yaml && "
    say(f"next   {copy}make repro    (about {trial.minutes:,.0f} minutes here)")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.adopt", description=(__doc__ or "").partition("\n")[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--network", help="timm/NAME or torchvision/NAME")
    which.add_argument("--module", metavar="PACKAGE.MODULE:FUNCTION", help="your own, called as train.network says")
    parser.add_argument("--weights", required=True, help="a .safetensors or .pth file, or a name of torchvision")
    parser.add_argument("--images", required=True, metavar="FOLDER", help="<class>/*.jpg, or train/ and test/ of such")
    parser.add_argument("--output", type=Path, default=Path("params.yaml"), help="the file to write: params.yaml")
    parser.add_argument("--force", action="store_true", help="replace the file even if git does not have its content")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="prepare.image_size=64")
    options = parser.parse_args()
    if options.network is not None and not options.network.startswith(PUBLISHED):
        raise InputError(
            f"--network must be timm/NAME or torchvision/NAME, is {options.network!r}; --module takes others"
        )
    if options.module is not None and not re.fullmatch(r"\w+(\.\w+)*:\w+", options.module):
        raise InputError(f"--module must be PACKAGE.MODULE:FUNCTION, is {options.module!r}")
    return options


def check_chosen(chosen: Iterable[str], own: Mapping[str, str], output: Path) -> None:
    """Raise InputError for a key that is not to be chosen, because the command decides its value."""
    for key in chosen:
        if key in own:
            raise InputError(f"--set {key}: is {own[key]} in what this command writes: edit {output} afterwards")


def check_score(trial: Trial) -> None:
    """Raise InputError where the network is right no more often than by chance: something does not fit.

    Classes count alike, however many images each has: one that always names the largest class is no better than chance.
    """
    shares = trial.shares
    if sum(shares) <= 1:
        average = float(sum(shares) / len(shares))
        raise InputError(
            f"right for {sum(trial.right)} of {sum(trial.images)} images, and for {average:.1%} on average of the "
            f"{len(shares)} classes among them, no more than by chance: are classes in the order of the folder names, "
            "and images normalised and resized as in training? --set changes prepare.normalization, prepare.resize "
            "and others"
        )


if __name__ == "__main__":
    run_stage(main)
