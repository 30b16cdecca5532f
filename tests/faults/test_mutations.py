"""A damaged or hostile file is read or refused in one line: no crash, no hang, bounded memory, nothing executed."""

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from lightweight.core.errors import InputError
from lightweight.core.files import write_csv
from lightweight.core.tensor_file import read_tensors, write_tensors
from lightweight.data.dataset_file import load_dataset
from lightweight.networks.factory import build
from lightweight.networks.model_file import load_model
from lightweight.onnx.checksum import serialize
from lightweight.onnx.session import load_inference_session
from lightweight.preparation.images import read_image
from lightweight.training.loss import LossParams, load_teacher
from lightweight.training.pretrained import load_weights
from tests.contract import ROOT
from tests.examples import METHODS, convnet_file
from tests.faults.mutate import mutant
from tests.faults.mutation_corpus import ARGUMENTS, write_corpus
from tests.faults.mutation_readers import BOUND, READERS
from tests.faults.mutation_trial import OUTCOMES
from tests.onnx.test_session import huge_for

LOG = ROOT / "tests/faults/mutations.csv"
SHORT, LONG = 70, 1400  # mutants of each kind
HUGE = ARGUMENTS | {"image_size": 1024, "num_classes": 100_000}  # of which `cnn` takes 33 GB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds memory by /proc and RLIMIT_AS")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tiny_dataset) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, {method: convnet_file(method, tiny_dataset) for method in METHODS})
    return folder


def run(corpus: Path, number: int) -> list[dict[str, int | str]]:
    """The counts of each kind; asserts that nothing crashed or hung, and names what did."""
    command = [sys.executable, "-m", "tests.faults.mutation_trial", str(corpus), str(number)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    rows = [line for line in lines if "mutants" in line]
    assert [line for line in lines if line not in rows] == []
    assert [row["kind"] for row in rows] == list(READERS)
    assert all(row["accepted"] + row["refused"] == row["mutants"] == number for row in rows)
    return rows


def test_mutants_are_accepted_or_refused_in_one_line(corpus):
    rows = run(corpus, SHORT)
    assert all(row["accepted"] and row["refused"] for row in rows), "mutants reach both ends"


@pytest.mark.slow
def test_twenty_thousand_mutants_are_accepted_or_refused_in_one_line(corpus):
    write_csv(LOG, ("kind", "mutants", *OUTCOMES), run(corpus, LONG))


FAULTY = """
import json, os, pickle, runpy, subprocess, sys, time
from pathlib import Path
from lightweight.core.errors import InputError
from tests.faults import mutation_trial

def refuse(content):
    raise InputError("refused")

folder = Path(sys.argv[1])
(folder / "code.py").write_text("")
mutation_trial.PEAK = 2**26
mutation_trial.READERS.update({
    "accepts": lambda content: None,
    "refuses": refuse,
    "raises": lambda content: 1 / 0,
    "ends": lambda content: sys.exit(0),
    "aborts": lambda content: os.abort(),
    "hangs": lambda content: time.sleep(1000),
    "grows": lambda content: b"x" * 2**27,
    "exhausts": lambda content: refuse(b"x" * 2**40),
    "unpickles": lambda content: pickle.loads(b"cos\\nsystem\\n(S''\\ntR."),
    "commands": lambda content: os.system(""),
    "starts": lambda content: subprocess.run("true"),
    "imports": lambda content: runpy.run_path(folder / "code.py"),
    "writes": lambda content: Path.home().joinpath("nowhere/file").open("w"),
    "marks": lambda content: Path("mark").touch(),
})
for kind in list(mutation_trial.READERS)[-14:]:
    mutation_trial.SECONDS = 1 if kind == "hangs" else 60
    rows = list(mutation_trial.trial(kind, range(2), {kind: [b"content"]}, folder))
    assert [row[0] for row in rows] == [0, 1], kind
    print(kind, *{row[1] for row in rows})
"""


def test_whatever_a_reader_does_is_noticed_and_the_next_mutant_met(tmp_path, start_python):
    process = start_python(FAULTY, tmp_path)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    outcomes = dict(line.split() for line in output.splitlines())
    assert (outcomes.pop("accepts"), outcomes.pop("refuses"), outcomes.pop("hangs")) == ("accepted", "refused", "hung")
    assert outcomes == dict.fromkeys(
        (
            "raises",
            "ends",
            "aborts",
            "grows",
            "exhausts",
            "unpickles",
            "commands",
            "starts",
            "imports",
            "writes",
            "marks",
        ),
        "crashed",
    )


@pytest.mark.parametrize("kind", READERS)
def test_every_valid_file_is_accepted(corpus, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (corpus / kind).iterdir():
        READERS[kind](path.read_bytes())


def test_an_onnx_file_without_a_product_is_accepted(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = onnx.load(corpus / "onnx" / "none")
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.initializer.append(onnx.helper.make_tensor("axis", onnx.TensorProto.INT64, [1], [3]))
    model.graph.initializer.append(onnx.helper.make_tensor("start", onnx.TensorProto.INT64, [2], [0, 0]))
    model.graph.initializer.append(onnx.helper.make_tensor("end", onnx.TensorProto.INT64, [2], [1, 10]))
    model.graph.initializer.append(onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [2], [1, 2]))
    model.graph.initializer.append(onnx.helper.make_tensor("channel", onnx.TensorProto.INT64, [1], [1]))
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["input", "axis"], ["rows"], keepdims=0))
    model.graph.node.append(onnx.helper.make_node("Slice", ["rows", "start", "end", "axes"], ["ten"]))
    model.graph.node.append(onnx.helper.make_node("Squeeze", ["ten", "channel"], ["logits"]))
    READERS["onnx"](serialize(model))


def test_the_bound_of_the_mutants_is_met_by_an_onnx_file_that_needs_more(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = onnx.load(corpus / "onnx" / "none")
    huge_for(1.25 * BOUND)(model)
    READERS["onnx"](serialize(model))  # images of the trial are black
    (brightest,) = (node for node in model.graph.node if node.output == ["pixel"])
    brightest.input[:] = ["one"]
    with pytest.raises(InputError, match="Available memory"):
        READERS["onnx"](serialize(model))


def test_a_mutant_is_named_by_its_kind_and_number(corpus):
    files = {kind: [path.read_bytes() for path in sorted((corpus / kind).iterdir())] for kind in READERS}
    for kind in READERS:
        once, again = ([mutant(kind, number, files) for number in range(20)] for _ in range(2))
        assert once == again
        assert len({content for _, content in once}) > 15


def signed(path: Path, change: Callable[[dict[str, torch.Tensor], dict], object]) -> Path:
    """The file after a change, with a checksum that is right."""
    tensors, about = read_tensors(path)
    change(tensors, about)
    write_tensors(path.with_name("changed"), tensors, about)
    return path.with_name("changed")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda tensors, about: about.update(classes="0123456789"), "classes must be a list of names"),
        (lambda tensors, about: about.update(classes=[0, 1]), "classes must be a list of names"),
        (lambda tensors, about: about.update(input_size=8), "input_size must be an integer"),
        (lambda tensors, about: about.update(input_size=2**40), "input_size must be an integer"),
        (lambda tensors, about: about.update(input_size=12.0), "input_size must be an integer"),
        (lambda tensors, about: about.update(resize="fit"), "resize must have a shorter_side"),
        (lambda tensors, about: tensors.update({"val.images": torch.zeros(10, 1, 12, 12)}), "val.images must be uint8"),
        (lambda tensors, about: tensors.update({"val.images": tensors["val.images"][:0]}), "val.images must be uint8"),
        (lambda tensors, about: tensors.update({"val.labels": tensors["val.labels"][1:]}), "val.labels must be int64"),
        (lambda tensors, about: tensors["val.labels"].fill_(10), "val.labels must be int64"),
        (lambda tensors, about: tensors["val.labels"].fill_(-1), "val.labels must be int64"),
        (lambda tensors, about: tensors.update(mean=torch.zeros(3)), "mean must be float32 (1,)"),
        (lambda tensors, about: tensors.pop("std"), "std is missing"),
    ],
)
def test_a_signed_data_set_that_no_stage_can_use_is_refused(tmp_path, corpus, change, rule):
    path = tmp_path / "data"
    path.write_bytes((corpus / "dataset" / "noise").read_bytes())
    changed = signed(path, change)
    with pytest.raises(InputError) as error:
        load_dataset(changed)
    assert str(error.value).startswith(f"{changed}: not a prepared data set: {rule}")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda tensors, about: about.update(network="antigravity:fly"), "must be a module in the project's folder"),
        (lambda tensors, about: about.update(network=7), "must be a name"),
        (lambda tensors, about: about.update(arguments=[]), "its arguments, notes and shapes must be mappings"),
        (lambda tensors, about: about.update(notes=None), "its arguments, notes and shapes must be mappings"),
        (lambda tensors, about: about["arguments"].update(image_size=100_000), "must be an integer from 1 to 1,024"),
        (lambda tensors, about: about["arguments"].update(num_classes=100_000), "the weights do not fit the network"),
        (lambda tensors, about: about.update(network="cnn", arguments=HUGE), "the weights do not fit the network"),
        (lambda tensors, about: about["arguments"].update(odd=1), "a model file of another version"),
    ],
)
def test_a_signed_model_file_cannot_choose_code_or_memory(tmp_path, corpus, change, rule):
    path = tmp_path / "model"
    path.write_bytes((corpus / "checkpoint" / "tiny").read_bytes())
    with pytest.raises(InputError, match=rule):
        load_model(signed(path, change))
    assert "antigravity" not in sys.modules


class Payload:
    """What leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def saved_by_torch(payload: Payload, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": payload}, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def array_in_archive(payload: Payload) -> bytes:
    """NumPy's format, which pickles what is no number."""
    file = io.BytesIO()
    np.savez(file, weight=np.array([payload], dtype=object))
    return file.getvalue()


def tape(payload: Payload) -> bytes:
    """As PyTorch wrote before 0.1.10."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(payload)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def hidden_in_archive(payload: Payload) -> bytes:
    """Among the entries of whole weights."""
    file = io.BytesIO()
    torch.save(build("convnet", **ARGUMENTS).state_dict(), file)
    with zipfile.ZipFile(file, "a") as archive:
        names = archive.namelist()
        archive.writestr(next(name for name in names if name.endswith("data.pkl")), pickle.dumps(payload))
    return file.getvalue()


PAYLOADS: dict[str, Callable[[Payload], bytes]] = {
    "protocol 0": partial(pickle.dumps, protocol=0),
    "protocol 2": partial(pickle.dumps, protocol=2),
    "protocol 4": partial(pickle.dumps, protocol=4),
    "torch": partial(saved_by_torch, zipped=True),
    "old torch": partial(saved_by_torch, zipped=False),
    "numpy": array_in_archive,
    "tar": tape,
    "hidden": hidden_in_archive,
}
LOADERS: dict[str, Callable[[Path], object]] = {
    "train.weights": lambda path: load_weights(
        build("convnet", **ARGUMENTS), "convnet", path.name, path.parent, new_classifier=True
    ),
    "train.teacher": lambda path: load_teacher(
        LossParams(label_smoothing=0.0, teacher=path.name, temperature=1.0, teacher_weight=0.5), path.parent, None
    ),
    "checkpoint": load_model,
    "dataset": load_dataset,
    "tensors": read_tensors,
    "onnx": partial(load_inference_session, threads=1),
    "image": partial(read_image, size=8, channels=1),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")  # of zipfile about the hidden payload
@pytest.mark.parametrize("make", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("suffix", ["", ".pth", ".safetensors"])
def test_a_pickle_that_would_execute_something_is_refused_and_leaves_no_mark(tmp_path, suffix, load, make):
    path, mark = tmp_path / f"file{suffix}", tmp_path / "mark"
    path.write_bytes(make(Payload(mark)))
    with pytest.raises(InputError) as error:
        load(path)
    assert str(error.value).isprintable()
    assert not mark.exists()


@pytest.mark.parametrize("name", ["protocol 0", "protocol 2", "protocol 4"])
def test_the_payload_would_leave_a_mark(tmp_path, name):
    pickle.loads(PAYLOADS[name](Payload(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()
