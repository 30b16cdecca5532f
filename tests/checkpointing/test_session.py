"""A session gives all parts of a stage the augmentation of section train."""

from types import SimpleNamespace

from lightweight.checkpointing.session import discard, open_session
from tests.examples import augment_params, train_params


def test_a_session_holds_the_augmentation_of_training(tmp_path, tiny_dataset):
    augment = augment_params(crop=2)
    params = SimpleNamespace(seed=3, threads=1, train=train_params(augment=augment))
    output = tmp_path / "output"
    output.write_text("made")
    with open_session(tmp_path / "swa", params, tiny_dataset, [], output, log=discard) as session:
        assert session.augmentation == augment
        assert session.seed == 3
