"""Configuration, manifests, grants, policies and code on the pages do what the pages say."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import settings
from gateway.catalog.registry import read_registry
from gateway.policy import load as load_policy
from gateway.policy import test as run_policy_tests
from gateway.quickstart.opa_server import configuration as opa_config
from tests.docs.pages import ROOT, Snippet, snippets

_ENVIRON = dict.fromkeys(("OPENAI_API_KEY", "BEDROCK_KEY", "MAIL_TOKEN", "FILES_TOKEN", "OPA_BUNDLE_TOKEN"), "a-secret")
_YAML_MARKS = {"gateway.yaml", "grants", "manifest", "opa.yaml", "collector.yaml", "rules.yaml"}


def _marked(language: str, *marks: str) -> list[Snippet]:
    return [one for one in snippets(language) if one.mark in marks]


def _merged(old: Any, new: Any) -> Any:
    """What a reader makes of a fragment: keys are put in, list items are added."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: _merged(old.get(key), value) for key, value in new.items()}
    return [*old, *new] if isinstance(old, list) and isinstance(new, list) else new


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The shipped configuration, as a reader has it before the page is followed."""
    shutil.copy(ROOT / "gateway.yaml", tmp_path)
    for folder in ("policies", "tools_registry"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def test_every_yaml_snippet_says_what_it_is_a_part_of() -> None:
    assert {one.mark for one in snippets("yaml")} == _YAML_MARKS


@pytest.mark.parametrize("snippet", _marked("yaml", "gateway.yaml"), ids=lambda one: one.id)
def test_fragments_of_gateway_yaml_are_valid_in_the_shipped_file(snippet: Snippet, house: Path) -> None:
    file = house / "gateway.yaml"
    file.write_text(yaml.safe_dump(_merged(yaml.safe_load(file.read_text()), yaml.safe_load(snippet.text))))
    config, problems = settings.load(file, _ENVIRON)
    assert config is not None, problems
    assert not problems


@pytest.mark.parametrize("snippet", _marked("yaml", "opa.yaml"), ids=lambda one: one.id)
def test_opa_is_told_what_our_own_launcher_tells_it(snippet: Snippet) -> None:
    page, ours = yaml.safe_load(snippet.text), opa_config("http://127.0.0.1:8080", "t")
    page["services"]["gateway"]["credentials"]["bearer"] = {"token": "t"}  # the page reads it from a file
    ours["bundles"]["gateway"]["polling"] = page["bundles"]["gateway"]["polling"]
    assert page == ours


@pytest.mark.parametrize("snippet", _marked("yaml", "manifest"), ids=lambda one: one.id)
def test_manifests_are_valid(snippet: Snippet, house: Path) -> None:
    name = str(yaml.safe_load(snippet.text)["server"])
    (house / "tools_registry" / f"{name}.yaml").write_text(snippet.text)
    manifests, problems = read_registry(house / "tools_registry", _ENVIRON)
    assert manifests is not None, problems
    assert not problems
    assert name in {one.server for one in manifests}


@pytest.mark.parametrize("snippet", _marked("yaml", "grants"), ids=lambda one: one.id)
def test_grants_are_taken_up_by_the_shipped_policies(snippet: Snippet, house: Path) -> None:
    file = house / "policies/grants/data.yaml"
    file.write_text(yaml.safe_dump(_merged(yaml.safe_load(file.read_text()), yaml.safe_load(snippet.text))))
    engine, problems = load_policy(house / "policies")
    assert engine is not None, problems


def _rules_of_page(page: Path, folder: Path) -> None:
    folder.mkdir()
    unnamed = 0
    for one in snippets("rego"):
        if one.page == page:
            unnamed += not one.mark
            (folder / (one.mark or f"page_{unnamed}.rego")).write_text(one.text)


@pytest.mark.parametrize(
    "page", sorted({one.page for one in snippets("rego")}), ids=lambda page: str(page.relative_to(ROOT))
)
def test_rules_load_with_the_shipped_policies_and_all_tests_pass(page: Path, house: Path) -> None:
    _rules_of_page(page, house / "policies/mail")
    engine, problems = load_policy(house / "policies")
    assert engine is not None, problems
    trials, problems = run_policy_tests(house / "policies")
    assert not problems
    assert trials
    assert not [trial for trial in trials if not trial.passed]


def test_the_page_on_policies_comes_with_tests_of_its_own(house: Path) -> None:
    _rules_of_page(ROOT / "docs/how-to/write-a-policy.md", house / "policies/mail")
    trials, _ = run_policy_tests(house / "policies")
    assert [trial for trial in trials if trial.name.startswith("data.mail_test.")]


_PARSERS: dict[str, Callable[[str], object]] = {"json": json.loads, "python": ast.parse}


@pytest.mark.parametrize(
    "snippet", [one for one in snippets() if one.language in _PARSERS], ids=lambda one: f"{one.id}-{one.language}"
)
def test_json_and_python_can_be_read(snippet: Snippet) -> None:
    _PARSERS[snippet.language](snippet.text)


def _expands(line: str) -> bool:
    """Whether an interactive shell takes a `!` for a word of its history: outside of single quotes, before a word."""
    quote = ""
    for at, char in enumerate(line):
        if char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        elif char == "!" and quote != "'" and line[at + 1 : at + 2] not in ("", " ", "=", "(", quote):
            return True
    return False


@pytest.mark.parametrize("snippet", snippets("bash"), ids=lambda one: one.id)
def test_commands_can_be_pasted_into_an_interactive_shell(snippet: Snippet) -> None:
    assert not [line for line in snippet.text.splitlines() if not line.startswith("#") and _expands(line)]


def test_rules_whose_denials_the_pages_quote_are_shipped() -> None:
    rego = "".join(file.read_text() for file in (ROOT / "policies").rglob("*.rego"))
    for rule in ("ledger_payee_not_listed", "effect_needs_approval"):
        quoted = [one for one in snippets("text") if rule in one.text]
        assert quoted
        assert f'"rule": "{rule}"' in rego


def test_the_quickstart_page_and_the_readme_paste_the_same_commands() -> None:
    page = (ROOT / "gateway/quickstart/page.py").read_text()
    readme = (ROOT / "README.md").read_text()
    for part in (
        '"messages": [{"role": "user", "content": "Hello!"}]',
        '{"to": "acme-gmbh", "amount_cents": 2500, "reference": "INV-1"}',
        "-m gateway.quickstart.try_mcp",
    ):
        assert part in readme
        assert part in page.replace("{{", "{").replace("}}", "}")
