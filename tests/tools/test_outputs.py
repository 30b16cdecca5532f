"""What `dvc repro` leaves behind is what dvc.lock says, or the command that mends it is told."""

import hashlib

import pytest

from lightweight.core.errors import InputError
from tools.verify.outputs import check_outputs


@pytest.fixture
def stages(tmp_path, monkeypatch) -> dict[str, dict]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/snapshots").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    outs = []
    for path in ("models/a.onnx", "models/b.onnx", "data/large"):
        (tmp_path / path).write_text(path)
        outs.append({"path": path, "md5": hashlib.md5(path.encode()).hexdigest()})
    outs.append({"path": "models/snapshots", "md5": "0123.dir"})
    return {"one": {"outs": outs[:1]}, "two": {"outs": outs[1:]}, "three": {}}


def test_outputs_that_are_as_the_lock_says_pass_and_so_do_missing_ones_and_data(stages, tmp_path):
    check_outputs(stages)
    (tmp_path / "models/a.onnx").unlink()
    (tmp_path / "data/large").write_text("changed")
    check_outputs(stages)


def test_an_altered_output_is_named_with_the_command_that_removes_it_and_its_object(stages, tmp_path):
    (tmp_path / "models/b.onnx").write_text("changed")
    md5 = hashlib.md5(b"models/b.onnx").hexdigest()
    with pytest.raises(InputError) as error:
        check_outputs(stages)
    line = str(error.value)
    assert line.startswith("models/b.onnx: damaged: ")
    assert line.endswith(f"rm -rf models/b.onnx .dvc/cache/files/md5/{md5[:2]}/{md5[2:]} && dvc repro")
