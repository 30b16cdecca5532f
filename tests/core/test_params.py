from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
from pydantic import Field, ValidationError

from lightweight.core.errors import InputError
from lightweight.core.params import Params, Seed, Threads, load_all_params, load_params


class Inner(Params):
    shift: float = Field(ge=0, le=0.5)
    flip: bool


class Section(Params):
    amount: float = Field(ge=0, lt=1)
    epochs: int = Field(ge=1)
    kind: Literal["conv", "linear"]
    start: int | None
    inner: Inner


SEED = "seed: 0\n"
VALID = SEED + "section: {amount: 0.5, epochs: 3, kind: conv, start: null, inner: {shift: 0.1, flip: false}}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "params.yaml"


def load(path: Path, text: str) -> SimpleNamespace:
    path.write_text(text, encoding="utf-8")
    return load_params(path, seed=Seed, section=Section)


def message(path: Path, text: str) -> str:
    with pytest.raises(InputError) as error:
        load(path, text)
    return str(error.value).removeprefix(f"{path}")


def test_valid_sections_arrive_with_their_types(path):
    found = load(path, VALID)
    inner = Inner(shift=0.1, flip=False)
    assert found.seed == 0
    assert found.section == Section(amount=0.5, epochs=3, kind="conv", start=None, inner=inner)


def test_only_the_named_sections_are_read(path):
    path.write_text(SEED + "other: [not, a, section]\n")
    assert vars(load_params(path, seed=Seed)) == {"seed": 0}


@pytest.mark.parametrize("text", ["1e-3", "1e-05", "5E-1", "1.5e-1", "0.25", "0"])
def test_numbers_are_floats_and_equal_to_those_of_dvc(path, text):
    from dvc.utils.serialize import load_yaml

    amount = load(path, VALID.replace("amount: 0.5", f"amount: {text}")).section.amount
    assert type(amount) is float
    assert amount == float(text) == load_yaml(path)["section"]["amount"]


def test_a_section_cannot_be_changed(path):
    section = load(path, VALID).section
    with pytest.raises(ValidationError, match="frozen"):
        section.amount = 0.1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("amount: 0.5", "amount: 1.7", "section.amount = 1.7: must be less than 1"),
        ("amount: 0.5", "amount: -1e-3", "section.amount = -0.001: must be greater than or equal to 0"),
        ("amount: 0.5", "amount: .nan", "section.amount = nan: must be a finite number"),
        ("amount: 0.5", "amount: .inf", "section.amount = inf: must be a finite number"),
        ("amount: 0.5", "amount: '0.5'", "section.amount = '0.5': must be a valid number"),
        ("amount: 0.5", "amount: true", "section.amount = True: must be a valid number"),
        ("amount: 0.5", "amount: [0.5]", "section.amount = [0.5]: must be a valid number"),
        ("amount: 0.5", "amount: 2024-01-31", "section.amount = datetime.date(2024, 1, 31): must be a valid number"),
        ("amount: 0.5", "amount: null", "section.amount = None: must be a valid number"),
        ("epochs: 3", "epochs: 0", "section.epochs = 0: must be greater than or equal to 1"),
        ("epochs: 3", "epochs: 1.0", "section.epochs = 1.0: must be a valid integer"),
        ("epochs: 3", "epochs: true", "section.epochs = True: must be a valid integer"),
        ("epochs: 3", "epochs: .inf", "section.epochs = inf: must be a valid integer"),
        ("kind: conv", "kind: cnov", "section.kind = 'cnov': must be 'conv' or 'linear'"),
        ("kind: conv", "kind: [conv]", "section.kind = ['conv']: must be 'conv' or 'linear'"),
        ("start: null", "start: '1'", "section.start = '1': must be a valid integer"),
        ("shift: 0.1", "shift: 0.7", "section.inner.shift = 0.7: must be less than or equal to 0.5"),
        ("flip: false", "flip: 0", "section.inner.flip = 0: must be a valid boolean"),
        ("flip: false", "flip: no", "section.inner.flip = 'no': must be a valid boolean"),  # YAML 1.1 only
        ("epochs: 3, ", "", "section.epochs: missing"),
        (", flip: false", "", "section.inner.flip: missing"),
        ("seed: 0\n", "", "seed: missing"),
        ("seed: 0", "seed: -1", "seed = -1: must be greater than or equal to 0"),
        ("seed: 0", "seed: 4294967296", "seed = 4294967296: must be less than 4294967296"),
        ("seed: 0", "seed: '0'", "seed = '0': must be a valid integer"),
        ("seed: 0", "seed: .nan", "seed = nan: must be a valid integer"),
    ],
)
def test_a_bad_value_is_one_line_with_file_key_value_and_rule(path, old, new, expected):
    assert old in VALID
    assert message(path, VALID.replace(old, new)) == f": {expected}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs: 3", "epochs: 3, epohcs: 4", "section.epohcs = 4: unknown key; did you mean epochs?"),
        ("epochs: 3", "epohcs: 3", "section.epohcs = 3: unknown key; did you mean epochs?"),
        ("flip: false", "flip: false, shfit: 1", "section.inner.shfit = 1: unknown key; did you mean shift?"),
        ("flip: false", "flip: false, zzz: 1", "section.inner.zzz = 1: unknown key; known are flip, shift"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_known_one(path, old, new, expected):
    assert message(path, VALID.replace(old, new)) == f": {expected}"


@pytest.mark.parametrize("text", ["seed: 0\n", "", "# all of it\n"])
def test_a_missing_section_is_named(path, text):
    expected = ": section: missing" if text.startswith("seed") else ": must be a mapping of sections"
    assert message(path, text) == expected


@pytest.mark.parametrize(("text", "value"), [("", None), (" 3", 3), (" [1]", [1])])
def test_a_section_that_is_no_mapping_is_refused(path, text, value):
    assert message(path, f"{SEED}section:{text}\n").startswith(f": section = {value!r}: must be a valid dictionary")


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("seed: 0\nsection: [1\n", "3, column 1", "while parsing a flow sequence, did not find expected ',' or ']'"),
        ("seed: 0: 1\n", "1, column 8", "mapping values are not allowed in this context"),
        (
            "seed: 0\n\tsection: 1\n",
            "2, column 1",
            "while scanning a plain scalar, found a tab character that violates indentation",
        ),
        ("seed: 0\nseed: 1\n", "2, column 1", 'found duplicate key "seed"'),
        ('"a\\nb": 0\n"a\\nb": 1\n', "2, column 1", 'found duplicate key "a b"'),
        ("seed: *other\n", "1, column 7", "found undefined alias"),
        (f"seed: {'[' * 101}\n", "1, column 106", "nested in more than 100 levels"),
        ("seed: !!python/object:os.system x\n", "1, column 7", "could not determine a constructor"),
    ],
)
def test_invalid_yaml_is_one_line_with_the_place_of_the_fault(path, text, place, problem):
    found = message(path, text)
    assert found.startswith(f", line {place}: not valid YAML: {problem}")
    assert "\n" not in found


@pytest.mark.parametrize("text", ["seed: \0\n", "seed: 2024-13-45\n"])
def test_yaml_without_a_place_for_its_fault_is_one_line(path, text):
    found = message(path, text)
    assert found.startswith(": not valid YAML: ")
    assert "\n" not in found


@pytest.mark.parametrize("content", [b"seed: 0 # caf\xe9\n", b"\xff\xfes\0"])
def test_a_file_that_is_not_utf8_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_params(path, seed=Seed)
    assert str(error.value) == f"{path}: not UTF-8 text"


def test_text_beyond_ascii_is_read_as_utf8(path):
    assert load(path, VALID + "# größer\n").seed == 0


def test_a_missing_file_says_where_to_run(path):
    with pytest.raises(InputError) as error:
        load_params(path, seed=Seed)
    assert str(error.value) == f"{path}: no such file; run from the root of the project"


@pytest.mark.parametrize(("value", "rule"), [(0, "greater than or equal to 1"), (1025, "less than or equal to 1024")])
def test_threads_are_bounded(path, value, rule):
    path.write_text(f"threads: {value}\n")
    with pytest.raises(InputError, match=f"threads = {value}: must be {rule}$"):
        load_params(path, threads=Threads)


def test_an_unknown_section_comes_with_the_nearest_known_one(path):
    path.write_text("prnue: 1\n")
    with pytest.raises(InputError) as error:
        load_all_params(path, prune=int, train=int)
    assert str(error.value) == f"{path}: prnue: unknown section; did you mean prune?"


def test_an_unlike_section_comes_with_all_known_ones(path):
    path.write_text("7: 1\n")
    with pytest.raises(InputError) as error:
        load_all_params(path, prune=int, train=int)
    assert str(error.value) == f"{path}: 7: unknown section; known are prune, train"


def test_known_sections_pass(path):
    path.write_text("prune: 1\n")
    assert load_all_params(path, prune=int) == SimpleNamespace(prune=1)
    path.write_text("prune: 1\nother: 1\n")
    with pytest.raises(InputError):
        load_all_params(path, prune=int)


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        ALIASES,
        ALIASES.replace("[", "{<<: [").replace("]", "], k: v}").replace("{<<: [x, x, x, x, x, x, x, x, x]", "{x: y"),
        ALIASES + "i: 1\n",
        "seed: &a [*a]\n",
        "seed: &a {<<: *a}\n",
        f"seed: [{'0, ' * 10_000}]\n",
    ],
    ids=["lists", "merge keys", "repeated key", "cycle", "merged cycle", "many"],
)
def test_values_that_aliases_multiply_are_refused_before_they_are_made(path, text):
    assert message(path, text) == ": holds more than 10,000 values, each alias counted as all that it stands for"


def test_aliases_and_merge_keys_are_values_like_others(path):
    text = VALID.replace("section: {", "section: {<<: &more {amount: 0.5}, ").replace("amount: 0.5, epochs", "epochs")
    assert "amount: 0.5" in text
    assert load(path, text).section.amount == 0.5


@pytest.mark.parametrize("number", ["1" * 101, "-" + "1" * 100, "0x" + "f" * 5000, "1" * 5000])
@pytest.mark.parametrize("text", ["seed: {}\n", "seed: [[{}]]\n", "? {}\n: 1\n", "seed: !!int '{}'\n"])
def test_integers_that_python_does_not_print_are_refused(path, text, number):
    assert message(path, text.format(number)) == ": not valid YAML: an integer of more than 100 digits"


def test_a_huge_file_is_refused_unread(path):
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError) as error:
        load_params(path, seed=Seed)
    assert str(error.value) == f"{path}: has 1,099,511,627,776 bytes: must be at most 100,000"


def test_a_folder_is_no_file(path):
    path.mkdir()
    with pytest.raises(InputError, match="no such file"):
        load_params(path, seed=Seed)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 5000, f"'{'x' * 37}...{'x' * 38}'"),
        ("[" + "x, " * 100 + "x]", "['x', 'x', 'x', 'x', 'x', 'x', ...]"),
        ("[[[[[1]]]]]", "[[[...]]]"),
        ("1" * 100, "1" * 18 + "..." + "1" * 19),
        ('"a\\nb\\e"', "'a\\nb\\x1b'"),
        ("{a: {b: 1}}", "{'a': {'b': 1}}"),
    ],
)
def test_a_value_of_any_size_is_shown_in_one_short_line(path, value, shown):
    assert message(path, VALID.replace("conv", value)).startswith(f": section.kind = {shown}: must be 'conv' or")


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ('"a\\nb"', "a\\nb"),
        ("x" * 5000, "x" * 37 + "..." + "x" * 38),
        ("2024-01-31", "datetime.date(2024, 1, 31)"),
        ("null", "None"),
    ],
)
def test_a_key_of_any_kind_is_shown_in_one_short_line(path, key, shown):
    path.write_text(f"? {key}\n: 1\n")
    with pytest.raises(InputError) as error:
        load_all_params(path, prune=int)
    assert str(error.value) == f"{path}: {shown}: unknown section; known are prune"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed: !!int ''\n", "invalid literal for int() with base 10: ''"),
        ("seed: !!bool 7\n", "'7'"),
        ("seed: 2001-12-14t21:59:43-99:99\n", "offset must be a timedelta strictly between"),
    ],
)
def test_whatever_the_parser_raises_is_one_line(path, text, problem):
    assert message(path, text).startswith(f": not valid YAML: {problem}")
