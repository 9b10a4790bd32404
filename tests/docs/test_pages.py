"""Links lead somewhere, nothing is named that does not exist, and no page knows the machine it was written on."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from gateway.errors import CODES
from gateway.process import Process, variable
from gateway.telemetry.reference import reference as metrics_markdown
from gateway.telemetry.settings import VARIABLES as TELEMETRY_VARIABLES
from tests.docs.pages import ROOT, anchors, code_words, links, pages, prose, written

# What scripts and examples use beside the process settings.
_OTHER_VARIABLES = {
    "GATEWAY_URL",
    "GATEWAY_KEY",
    "GATEWAY_CONSOLE",
    "GATEWAY_TEST_STRICT",
    "GATEWAY_GIT_SERVER",
    "GATEWAY_GIT_REPOSITORY",
}
_ROOMS = ("agents", "approvals", "own", "people", "policy", "sessions", "system", "trail")


def _page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=_page_id)
def test_every_relative_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    for target in links(page):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(file), f"{target} names no heading"


@pytest.mark.parametrize("page", pages(), ids=_page_id)
def test_no_page_knows_the_machine_it_was_written_on(page: Path) -> None:
    found = re.findall(r"(?:/work|/tmp|/root|/home|/Users|/build|/workspace)/\S*", page.read_text())
    assert not found, found


@pytest.mark.parametrize("page", written(), ids=_page_id)
def test_files_named_on_a_page_exist(page: Path) -> None:
    beside = page.parent if page.name == "README.md" else ROOT
    for word in code_words(page):
        if re.fullmatch(r"(gateway|tests|bench|docs|requirements|\.ci)/[\w./-]*(/|\.\w+)", word):
            assert (ROOT / word).exists() or (beside / word).exists(), f"{word} does not exist"


@pytest.mark.parametrize("page", written(), ids=_page_id)
def test_environment_variables_named_on_a_page_exist(page: Path) -> None:
    known = {variable(field) for field in Process.model_fields} | _OTHER_VARIABLES | TELEMETRY_VARIABLES
    named = set(re.findall(r"\b(?:GATEWAY|OTEL)_[A-Z_]+\b", page.read_text()))
    assert named <= known, named - known


@pytest.mark.parametrize("page", written(), ids=_page_id)
def test_metrics_named_on_a_page_exist(page: Path) -> None:
    named = {word for word in code_words(page) if re.fullmatch(r"gateway_(?!_)[a-z_]+", word)}
    known = set(re.findall(r"^\| `(gateway_\w+)`", metrics_markdown(), re.MULTILINE))
    assert named <= known, named - known


def test_troubleshooting_has_every_error_code_and_no_other() -> None:
    text = prose(ROOT / "docs/how-to/troubleshoot.md")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(CODES)


@pytest.mark.parametrize("page", written(), ids=_page_id)
def test_api_routes_named_on_a_page_are_served(page: Path) -> None:
    served = {"/api/v1", "/api/v1/openapi.json"}
    for room in _ROOMS:
        routes = importlib.import_module(f"gateway.doors.admin.{room}").routes
        served |= {f"/api/v1{route.path}" for route in routes.routes}
    for path in re.findall(r"/api/v1(?:/[a-z][\w./{}-]*)?", page.read_text()):
        assert path.rstrip(".") in served, f"{path} is not served"


@pytest.mark.parametrize("page", written(), ids=_page_id)
def test_make_targets_named_on_a_page_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = re.findall(r"^make ([a-z]+)\b|`make ([a-z]+)[^`]*`", page.read_text(), re.MULTILINE)
    named = {one or other for one, other in commands}
    assert named <= targets, named - targets


def test_decisions_are_numbered_listed_and_in_three_parts() -> None:
    folder = ROOT / "docs/decisions"
    records = sorted(page for page in folder.glob("*.md") if page.name != "README.md")
    assert [page.name[:4] for page in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    assert sorted(links(folder / "README.md")) == [page.name for page in records]
    for page in records:
        headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"], page.name
        assert page.read_text().startswith(f"# {page.name[:4]} ")


def test_every_how_to_is_reached_from_the_readme() -> None:
    reached = {(ROOT / target.partition("#")[0]).resolve() for target in links(ROOT / "README.md")}
    assert set((ROOT / "docs/how-to").glob("*.md")) <= reached


def test_every_room_stands_in_the_architecture() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rooms = [folder.name for folder in (ROOT / "gateway").iterdir() if (folder / "__init__.py").exists()]
    assert not [room for room in rooms if f"`gateway/{room}/`" not in text]
    modules = [file.name for file in (ROOT / "gateway").glob("*.py") if file.name != "__init__.py"]
    named = {"settings_docs.py", "usage.py", "yaml_lines.py"}  # small helpers of what is named
    assert not [name for name in modules if name not in named and f"`gateway/{name}`" not in text]
