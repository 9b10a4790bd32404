"""gateway.yaml: what it may say, what is wrong with it and where; nothing of a secret in it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from gateway import settings_docs
from gateway.config import Budget, Config, LimitSet, OpenAIProvider
from gateway.documents import Problem
from gateway.settings import load

ROOT = Path(__file__).parents[2]


class House:
    """A folder with what a configuration refers to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tools_registry").mkdir()
        (folder / "policies").mkdir()

    def load(self, text: str, **environ: str) -> tuple[Config | None, list[Problem]]:
        file = self.folder / "gateway.yaml"
        file.write_text("version: 1\n" + text)
        return load(file, environ)

    def good(self, text: str, **environ: str) -> Config:
        config, problems = self.load(text, **environ)
        assert config is not None, [str(problem) for problem in problems]
        return config

    def bad(self, text: str, **environ: str) -> list[Problem]:
        config, problems = self.load(text, **environ)
        assert config is None
        return problems


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_the_smallest_file_gives_the_defaults(house: House) -> None:
    config = house.good("")
    assert config.undeclared_client_tools == "deny"
    assert config.limits.default.requests_per_minute == 600
    assert config.tool_registry == house.folder / "tools_registry"


def test_the_shipped_configuration_has_no_problem() -> None:
    _, problems = load(ROOT / "gateway.yaml", {})
    assert [str(problem) for problem in problems] == []


def test_a_provider_is_what_its_type_says(house: House) -> None:
    config = house.good('providers:\n  o: {type: openai, base_url: "http://h/v1/", api_key: "env:K"}\n', K="s")
    provider = config.providers["o"]
    assert isinstance(provider, OpenAIProvider)
    assert provider.base_url == "http://h/v1"
    assert "env:K" in repr(provider)


def test_a_secret_in_the_file_is_refused_and_not_repeated(house: House) -> None:
    (problem,) = house.bad("providers:\n  o: {type: openai, api_key: sk-verysecret}\n")
    assert problem.line == 3
    assert "reference" in problem.message
    assert "sk-very" not in str(problem)


def test_a_reference_that_leads_nowhere_is_told_at_its_line(house: House) -> None:
    (problem,) = house.bad('providers:\n  o:\n    type: openai\n    api_key: "env:MISSING"\n')
    assert (problem.line, "MISSING is not set" in problem.message) == (5, True)


def test_references_in_headers_and_parameters_are_followed_too(house: House) -> None:
    text = 'providers:\n  o: {type: openai, headers: {x-a: "env:A", x-b: plain}}\n  l: {type: litellm, params: {k: "env:B", n: 3}}\n'
    assert len(house.bad(text)) == 2
    house.good(text, A="1", B="2")


def test_a_model_of_an_unknown_provider_is_told_with_a_suggestion(house: House) -> None:
    (problem,) = house.bad("providers: {demo: {type: demo}}\nmodels:\n  - {alias: m, provider: dmeo, model: x}\n")
    assert problem.line == 4
    assert problem.mend == "Did you mean 'demo'?"


def test_duplicate_aliases_and_agents_are_told_with_both_lines(house: House) -> None:
    text = """providers: {demo: {type: demo}}
models:
  - {alias: m, provider: demo, model: x}
  - {alias: m, provider: demo, model: y}
agents:
  - {id: a}
  - {id: a}
"""
    found = house.bad(text)
    assert [problem.line for problem in found] == [5, 8]
    assert "first on line 4" in found[0].message


def test_limits_of_an_unknown_agent_are_a_warning_beside_a_configuration(house: House) -> None:
    config, problems = house.load("agents: [{id: reader}]\nlimits:\n  agents:\n    raeder: {concurrency: 1}\n")
    assert config is not None
    assert [(problem.line, problem.severity) for problem in problems] == [(5, "warning")]


def test_limits_of_an_unknown_model_are_a_warning(house: House) -> None:
    config, problems = house.load("limits:\n  models:\n    nobody: {concurrency: 1}\n")
    assert config is not None
    assert [(problem.severity, problem.message) for problem in problems] == [
        ("warning", "Limits are set for 'nobody', which is not a model of this file.")
    ]


def test_paths_that_lead_nowhere_are_told_at_their_lines(house: House) -> None:
    found = house.bad(
        "tool_registry: nowhere\npolicy:\n  path: absent\nproviders:\n  d:\n    type: demo\n    script: no.yaml\n"
    )
    assert [problem.line for problem in found] == [2, 4, 8]


def test_money_is_exact_whether_it_is_quoted_or_not(house: House) -> None:
    config = house.good("limits: {default: {budgets: [{window: day, usd: 0.1}, {window: month, usd: '0.3'}]}}\n")
    day, month = config.limits.default.budgets or ()
    assert (day.usd, day.nanousd, month.nanousd) == (Decimal("0.1"), 100_000_000, 300_000_000)


@pytest.mark.parametrize(
    "budget", ["{window: day}", "{window: week, usd: 1}", "{window: day, usd: -1}", "{window: day, usd: .nan}"]
)
def test_a_budget_that_says_nothing_or_nonsense_is_refused(house: House, budget: str) -> None:
    (problem,) = house.bad(f"limits:\n  default:\n    budgets:\n      - {budget}\n")
    assert problem.line == 5


def test_two_budgets_of_one_window_are_refused(house: House) -> None:
    assert (
        "same window"
        in house.bad("limits: {default: {budgets: [{window: day, usd: 1}, {window: day, usd: 2}]}}")[0].message
    )


def test_an_agents_limits_replace_only_what_they_give() -> None:
    default = LimitSet(requests_per_minute=10, concurrency=2, budgets=(Budget(window="day", usd=Decimal(1)),))
    own = LimitSet(concurrency=None, requests_per_minute=20).over(default)
    assert (own.requests_per_minute, own.concurrency, own.budgets) == (20, None, default.budgets)


def test_the_configuration_is_frozen(house: House) -> None:
    with pytest.raises(ValueError, match="frozen"):
        house.good("").environment = "prod"


def test_the_reference_page_is_what_the_models_say() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    assert page == settings_docs.markdown(), "run: python -m gateway.settings_docs > docs/reference/settings.md"
    assert "|  |\n" not in page, "every setting says what it means"


@pytest.mark.parametrize(("environment", "warned"), [("dev", False), ("stage", True), ("prod", True)])
def test_observing_undeclared_tools_outside_dev_is_a_warning(house: House, environment: str, warned: bool) -> None:
    text = f"environment: {environment}\nundeclared_client_tools: observe\n"
    house.good(text)
    (house.folder / "gateway.yaml").write_text(f"version: 1\n{text}")
    config, problems = load(house.folder / "gateway.yaml", {})
    assert config is not None
    assert [(one.severity, one.line) for one in problems] == ([("warning", 3)] if warned else [])
    assert all(environment in one.message for one in problems)


@pytest.mark.parametrize("setting", ["deny", "escalate"])
def test_what_does_not_let_undeclared_tools_pass_is_fine_everywhere(house: House, setting: str) -> None:
    (house.folder / "gateway.yaml").write_text(f"version: 1\nenvironment: prod\nundeclared_client_tools: {setting}\n")
    assert load(house.folder / "gateway.yaml", {})[1] == []
