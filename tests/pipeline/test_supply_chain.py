"""What comes in is pinned, licensed and checked by hash; what is known to be vulnerable is found or named."""

import csv
import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from configparser import ConfigParser
from email.message import Message
from importlib import metadata
from io import BytesIO
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

from lightweight.core.errors import InputError
from lightweight.core.torchvision_compat import torchvision
from lightweight.networks.factory import build
from lightweight.preparation.downloads import TORCHVISION_NAMES, read_published
from lightweight.training.pretrained import load_weights
from tests.contract import ROOT
from tests.workspace import Workspace

PINNED = ("requirements.txt", "constraints.txt", "constraints-cuda.txt")  # the last is for NVIDIA GPUs alone
LISTED = PINNED[:2]
OPTIONAL = ("audit", "runtimes", "litert", "executorch", "sweep", "remotes")
SECURITY = (ROOT / "SECURITY.md").read_text()
SOURCES = sorted(
    path for name in ("lightweight", "stages", "tools", "comparisons", "edge") for path in (ROOT / name).rglob("*.py")
)
SILENCED = "import lightweight.core.telemetry"


def requirements(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-c "))]


def pins(*names: str) -> dict[str, str]:
    return {
        canonicalize_name(entry.name): str(entry.specifier).removeprefix("==")
        for name in names
        for entry in requirements(name)
    }


@pytest.mark.parametrize("name", [*PINNED, *(f"requirements-{name}.txt" for name in OPTIONAL)])
def test_every_requirement_is_one_exact_version(name):
    assert requirements(name)
    for entry in requirements(name):
        assert re.fullmatch(r"==[\w.]+", str(entry.specifier)), entry


def test_no_package_is_pinned_twice():
    names = [canonicalize_name(entry.name) for name in PINNED for entry in requirements(name)]
    assert sorted(names) == sorted(set(names))


def test_pip_takes_the_constraints_with_the_requirements():
    assert {line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("-c")} == {
        f"-c {name}" for name in PINNED[1:]
    }


def brought_along(python: str) -> Iterator[tuple[str, str]]:
    """Every package that requirements.txt leads to on Linux, with the requirement that does."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    environment |= {"platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
    todo = [(canonicalize_name(entry.name), entry) for entry in requirements("requirements.txt")]
    seen = set()
    while todo:
        name, entry = todo.pop()
        if (name, *entry.extras) in seen:
            continue
        seen.add((name, *entry.extras))
        yield name, str(entry)
        try:
            needs = [Requirement(line) for line in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:  # of another Python than this one
            continue
        for need in needs:
            extras = entry.extras or {""}
            if not need.marker or any(need.marker.evaluate(environment | {"extra": extra}) for extra in extras):
                todo.append((canonicalize_name(need.name), need))


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_whatever_the_requirements_bring_along_is_pinned(python):
    unpinned = {f"{name} by {entry}" for name, entry in brought_along(python) if name not in pins(*PINNED)}
    assert unpinned == set()


def test_nothing_is_pinned_in_vain():
    assert set(pins("constraints.txt")) <= {name for name, _ in brought_along("3.11")}


def test_what_is_installed_is_what_is_pinned():
    for name, version in pins(*LISTED).items():
        assert Version(metadata.version(name)).public == version, name


def licences() -> list[dict[str, str]]:
    with (ROOT / "licences.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_list_of_licences_is_of_exactly_the_pinned_packages():
    listed = {canonicalize_name(row["Name"]): row["Version"] for row in licences()}
    assert listed == pins(*LISTED), "make licences"


def test_every_licence_is_known_and_strong_copyleft_is_named():
    for row in licences():
        assert row["License"], row
        assert "unknown" not in row["License"].lower(), row
        assert row["URL"].startswith("http"), row
    copyleft = {row["Name"] for row in licences() if re.search(r"(?<!L)GPL|EUPL|OSL|SSPL", row["License"])}
    assert copyleft
    for name in copyleft:
        assert f"`{name}`" in SECURITY, name


def test_dvc_reports_nothing_and_asks_for_no_update():
    config = ConfigParser()
    config.read(ROOT / ".dvc/config")
    assert {"analytics": "false", "check_update": "false"}.items() <= dict(config["core"]).items()  # beside a remote


def test_onnx_runtime_is_silenced_before_its_import(start_python):
    importing = [
        path for path in SOURCES if re.search(r"^\s*(import|from) onnxruntime", path.read_text(), re.MULTILINE)
    ]
    assert importing
    for path in [*importing, ROOT / "tests/conftest.py"]:
        before = re.split(r"\n\s*(?:import|from) onnxruntime", path.read_text())[0]
        assert f"\n{SILENCED}" in before, path
    code = f"import os, sys; {SILENCED}; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    output, errors = start_python(code, ORT_DISABLE_TELEMETRY="0").communicate()
    assert (output, errors) == ("1 False\n", "")


def test_nothing_but_these_two_calls_downloads():
    network = r"\b(urllib|http\.client|socket|ssl|requests|httpx|aiohttp|huggingface_hub|ftplib)\b"
    fetch = r"\b(download=|urlopen|urlretrieve|load_state_dict_from_url|get_state_dict|hf_hub|pretrained=)"
    calls = set()
    for path in SOURCES:
        text = path.read_text()
        found = re.search(rf"^\s*(import|from) {network}", text, re.MULTILINE)
        assert not found or path.name in ("machines.py", "watch.py"), path  # which connect machines of one stage
        calls |= {(path.stem, call) for call in re.findall(fetch, text)}
    assert calls == {("downloads", "download="), ("pretrained", "get_state_dict")}


@pytest.fixture
def corrupting(monkeypatch, tmp_path) -> None:
    """A network that answers every download with other bytes."""

    def write(url: str, path: str) -> None:
        Path(path).write_bytes(b"other bytes")

    utils = torchvision("datasets.utils")
    monkeypatch.setattr(utils, "_urlretrieve", write)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    answer = BytesIO(b"other bytes")
    answer.info = Message
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: answer)


@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_a_downloaded_data_set_of_another_hash_is_refused(corrupting, tmp_path, name):
    for _ in ("downloaded", "found"):
        with pytest.raises(InputError, match="corrupted"):
            read_published(name, tmp_path)


def test_downloaded_weights_of_another_hash_are_refused_and_not_kept(corrupting, tmp_path):
    model = build("torchvision/resnet18", 3, 32, 10, small_stem=False)
    with pytest.raises(InputError, match=r'invalid hash value \(expected "f37072fd"'):
        load_weights(model, "torchvision/resnet18", "IMAGENET1K_V1", tmp_path, new_classifier=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_every_published_file_of_weights_carries_its_hash():
    models = torchvision("models")
    urls = {weights.url for name in models.list_models(module=models) for weights in models.get_model_weights(name)}
    assert len(urls) > 100
    for url in urls:
        assert url.startswith("https://")
        found = torch.hub.HASH_REGEX.search(Path(url).name)
        assert found, url
        assert len(found[1]) >= 8, url


def test_the_workflows_audit_and_pin_their_actions_by_commit():
    for path in (ROOT / ".github/workflows").glob("*.yaml"):
        for job in YAML(typ="safe").load(path)["jobs"].values():
            assert re.fullmatch(r"ubuntu-\d\d\.04", job["runs-on"])
            for step in job["steps"]:
                assert "uses" not in step or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])
    workflow = YAML(typ="safe").load(ROOT / ".github/workflows/ci.yaml")
    assert {"run": "make audit"} in workflow["jobs"]["pipeline"]["steps"]


@pytest.fixture
def project(tmp_path) -> Workspace:
    """A Makefile and, in place of pip-audit, a script that prints its arguments and ends with $CODE."""
    for name in ("Makefile", "requirements-audit.txt"):
        shutil.copy(ROOT / name, tmp_path)
    script = tmp_path / ".venv/audit/bin/pip-audit"
    script.parent.mkdir(parents=True)
    script.write_text('#!/bin/sh\necho "audited $@"\nexit $CODE\n')
    script.chmod(0o755)
    (tmp_path / ".venv/audit/installed").touch()
    return Workspace(tmp_path)


@pytest.fixture(params=[200, 500])
def database(request) -> Iterator[str]:
    """The address of a vulnerability database that answers with that status."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(request.param)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_an_audit_without_network_is_one_line_that_says_so(project):
    for proxy in ("https_proxy", "HTTPS_PROXY"):
        output = project.run("make", "audit", **{proxy: "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""})
    assert re.fullmatch("audit skipped: no network: https://api.osv.dev/.*Connection refused.*\n", output)


@pytest.mark.parametrize(("found", "code"), [("0", 0), ("1", 2)])
def test_an_audit_looks_up_every_pin_and_ends_as_pip_audit_does(project, database, found, code):
    output = project.run("make", "audit", f"OSV={database}", code=code, CODE=found, no_proxy="*")
    line = output.splitlines()[0]
    assert line.startswith("audited --strict")
    assert re.findall(r"--requirement (\S+)", line) == list(PINNED)
    assert set(re.findall(r"--ignore-vuln (\S+)", line)) == set(re.findall(r"CVE-\d+-\d+", SECURITY))


def test_security_md_names_tests_that_exist():
    named = set(re.findall(r"`((?:tests|lightweight)/[\w/]+\.py)`", SECURITY))
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).is_file(), name


def test_what_a_pull_request_names_itself_is_never_part_of_a_command_and_no_fork_gets_the_token():
    (job,) = YAML(typ="safe").load(ROOT / ".github/workflows/pull-request.yaml")["jobs"].values()
    assert job["if"] == "github.event.pull_request.head.repo.full_name == github.repository"
    assert not [step for step in job["steps"] if "${{" in step.get("run", "")]


def test_packages_of_npm_are_exact_and_locked_by_hash_and_none_runs_a_script_of_its_own():
    wanted = json.loads((ROOT / "playground/package.json").read_text())
    locked = json.loads((ROOT / "playground/package-lock.json").read_text())["packages"]
    for name, version in (wanted["dependencies"] | wanted["devDependencies"]).items():
        assert locked[f"node_modules/{name}"]["version"] == version
    assert all(entry["integrity"].startswith("sha512-") for name, entry in locked.items() if name)
    for path in ("Makefile", ".github/workflows/ci.yaml"):
        assert all("--ignore-scripts" in line for line in (ROOT / path).read_text().splitlines() if "npm ci" in line)
