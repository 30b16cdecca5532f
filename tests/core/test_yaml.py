"""params.yaml is read as DVC reads it, whose parser, ruamel.yaml, is the judge here."""

import math
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from lightweight.core.errors import InputError
from lightweight.core.yaml import parse_yaml, read_yaml
from tests.contract import ROOT

FILES = [ROOT / "params.yaml", ROOT / "dvc.yaml", ROOT / "dvc.lock", *sorted((ROOT / "recipes").glob("*.yaml"))]
REFUSED = "refused"
MANY = settings(max_examples=2000, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck])

NUMBERS = """
    0 1 -1 +1 -0 00 007 08 010 0o10 0o17 -0o7 +0o7 0o8 0O10 0o 0o_ 0b101 -0b1 0b2 0b_ 0B1 0x1F 0xfF -0x1f 0x 0x_ 0xg
    0X1F 1_000 1__0 -_ _1 1_ +_1 - + -- +-1 1-1 1+1 12345678901234567890 2e 1e3 1e-3 5e-4 1e-05 1E5 1e+5 -1e5 +1e5
    1_0e1_0 1e5.0 e5 .5 5. . -. +. ._ .5e3 .5e+3 -.5e3 +.5e-3 -.5 +.5 5.e3 5.e-3 1.5e3 1.5E-3 1.5e 1_0.5_0 0.1.2 1e400
    -1e400 1e-400 .e1 ._1 .inf -.inf +.inf .Inf .INF .iNF inf .nan .NaN .NAN -.nan nan
    1:30 1:30:00 190:20:30.15 -1:30 0:0 1:60
"""
WORDS = """
    true True TRUE tRUE false False FALSE yes Yes YES no No NO on On ON off Off OFF y Y n N t f
    ~ null Null NULL nULL none None << = ~~ null~ true1 1true conv1 conv? torchvision/resnet18 a:b a#b http://a.b/c?d=e#f
    2024-01-31 2024-1-31 2024-13-45 2024-01-31T 20240131 2001-12-14t21:59:43.10-05:00 2001-12-14t21:59:43Z
    2001-12-14t21:59:43-99:99 2001-12-15T2:59:43.1Z 1.2.3 0.1.0 v1
"""
SPACED = [
    "1 000", "1e-3 # one", "2001-12-14 21:59:43.10 -5", "2001-12-14 21:59:43", "- 1", "1 2", "a b", "'1'", '"1"'
]  # fmt: skip


def ours(text: str) -> Any:
    """Return what this project reads, or that it refuses to."""
    try:
        return parse_yaml(text, "text")
    except InputError:
        return REFUSED


def of_dvc(text: str) -> Any:
    """Return what DVC's parser reads, or that it raises something."""
    with warnings.catch_warnings(action="ignore"):  # of anchors that are used again
        try:
            return YAML(typ="safe").load(text)
        except Exception:
            return REFUSED


def same(first: Any, second: Any) -> bool:
    """Return whether values and all that they hold are equal and of equal types, in equal order; NaN equals NaN."""
    if type(first) is not type(second):
        return False
    match first:
        case dict():
            return same([*first.items()], [*second.items()])
        case list() | tuple():
            return len(first) == len(second) and all(map(same, first, second))
        case float() if math.isnan(first):
            return math.isnan(second)
        case _:
            return first == second


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_files_of_the_project_are_read_as_dvc_reads_them(path):
    content = read_yaml(path)
    assert len(content) > 1
    assert same(content, of_dvc(path.read_text()))


@pytest.mark.parametrize(
    "form", ["key: {}", "{}", "- {}", "[{}, {}]", "key: {b: {}}", "{}: value", "{ {}: value}", "key: !!str {}"]
)
def test_scalars_are_of_the_value_and_type_that_dvc_reads(form):
    for scalar in (*NUMBERS.split(), *WORDS.split(), *SPACED):
        text = form.replace("{}", scalar)
        assert same(ours(text), of_dvc(text)), text


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-3", 0.001),
        ("1e-05", 0.00001),
        (".5e3", ".5e3"),
        ("5.", 5.0),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", 1000),
        ("off", "off"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("-.inf", -math.inf),
        ("~", None),
        ("", None),
    ],
)
def test_scalars_are_those_of_yaml_1_2_with_the_exceptions_of_ruamel(scalar, value):
    assert same(ours(f"key: {scalar}"), {"key": value})


@MANY
@given(st.text("0123456789+-._:eExXoObnulyesoff~ ", max_size=12))
def test_random_scalars_are_of_the_value_and_type_that_dvc_reads(scalar):
    assert same(ours(f"key: {scalar}"), of_dvc(f"key: {scalar}"))
    for text in (f"- {scalar}\n- 1", f"[{scalar}, {scalar}]"):
        content = ours(text)
        refused = content == REFUSED and (scalar.strip().startswith(":") or scalar.strip().endswith(":"))
        assert refused or same(content, of_dvc(text)), text


TOKENS = [
    "a", "b", "1", "0", ".", ":", ": ", ",", ", ", "- ", "[", "]", "{", "}", "\n", "\n  ", "\n ", "'", '"', "#", " #",
    "<<: ", "&a ", "*a", "? ", "|\n", ">\n", "\t", " ", "!!int ", "e", "true", "\\", "/", "k: ", "\nk: ", "\n- ",
]  # fmt: skip


@MANY
@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join))
def test_a_mapping_that_is_read_is_the_one_that_dvc_reads_if_it_reads_one(text):
    content, judged = ours(text), of_dvc(text)
    assert same(content, judged) or not isinstance(content, dict) or judged == REFUSED


MERGED = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3, z: 4}\n"


@pytest.mark.parametrize(
    "text",
    [
        MERGED,
        f"{MERGED}c: {{<<: *b, x: 5}}",
        f"{MERGED}c: {{<<: [*a, *b]}}",
        f"{MERGED}c: {{<<: [*b, *a], w: *a}}",
        f"{MERGED}c: {{y: 9, <<: *b}}",
        f"{MERGED}c: {{'<<': *b}}",
        "a: {<<: {x: 1}, y: 2}",
        "a: {<<: 1}",
        "a: {<<: [1]}",
        "a: {<<: {x: 1}, <<: {y: 2}}",
        "a: &a [1, 2]\nb: *a",
        "{1: a, true: b}",
        "{1: a, '1': b}",
        "{null: a, 2024-01-31: b, 1.5: c, '': d}",
        "? a\n? b\n",
        "%YAML 1.2\n---\na: off",
    ],
    ids=lambda text: text.replace(MERGED, "").replace("\n", " "),
)
def test_merge_keys_aliases_and_keys_of_any_kind_are_read_as_dvc_reads_them(text):
    assert same(ours(text), of_dvc(text))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", 3),
        ("x:\n  1: a\n  0x1: b\n", 3),
        ("{a: 1, b: 2,\n 'a': 3}", 2),
        ("- {~: 1, null: 2}\n", 1),
        ("b: &b {x: 1}\na:\n  <<: *b\n  <<: *b\n", 4),
        ("b: &b {x: 1}\na:\n  <<: *b\n  y: 1\n  y: 2\n", 5),  # which ruamel.yaml lets pass, beside a merge key
    ],
)
def test_a_key_that_stands_twice_in_one_mapping_is_refused_with_its_line(text, line):
    with pytest.raises(InputError, match=rf"^text, line {line}, column \d+: not valid YAML: found duplicate key"):
        parse_yaml(text, "text")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("? [1, 2]\n: 3\n", ", line 1, column 3: not valid YAML: while constructing a mapping, found unhashable key"),
        (": 1\n", ", line 1, column 1: not valid YAML: while parsing a block mapping, did not find expected key"),
        ("[a:, b]\n", ", line 1, column 3: not valid YAML: while scanning a plain scalar, found unexpected ':'"),
        ("{a: b:}\n", ", line 1, column 6: not valid YAML: while scanning a plain scalar, found unexpected ':'"),
        (
            "a: 1\n---\nb: 2\n",
            ", line 2, column 1: not valid YAML: expected a single document in the stream, but found another document",
        ),
        ("%YAML 1.1\n---\na: off\n", ", line 1, column 1: not valid YAML: must be of version 1.2"),
        ("a: !!python/name:os.system\n", ", line 1, column 4: not valid YAML: could not determine a constructor"),
        ("a: !own 1\n", ", line 1, column 4: not valid YAML: could not determine a constructor"),
    ],
)
def test_what_dvc_might_read_otherwise_is_refused(text, fault):
    with pytest.raises(InputError) as error:
        parse_yaml(text, "text")
    assert str(error.value).startswith(f"text{fault}")


@pytest.mark.parametrize("text", ["", "\n", "# all of it\n", "---\n"])
def test_an_empty_document_is_none(text):
    assert parse_yaml(text, "text") is None


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{"])
def test_deep_nesting_ends_in_a_value_or_one_line(opening):
    for depth in (10, 100, 1000, 20_000):
        text = opening * depth
        assert depth <= 100 or ours(text) == REFUSED
        assert same(ours(text), REFUSED) or same(ours(text), of_dvc(text))
