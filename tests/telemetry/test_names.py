"""Every name that telemetry tells the world stands in one module, and in the docs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from gateway.actions import Effect
from gateway.telemetry import names
from gateway.telemetry.settings import SAMPLERS, VARIABLES
from gateway.telemetry.table import TABLE

ROOT = Path(__file__).parents[2]
OBSERVE = ROOT / "docs" / "how-to" / "observe.md"
_OF_CONVENTIONS = re.compile(r"(?:gen_ai|mcp|jsonrpc|rpc|service|deployment)\.[a-z_]+(?:\.[a-z_]+)*")


def told() -> set[str]:
    """The values of the constants in `names`."""
    found = set()
    for name, value in vars(names).items():
        if not name.isupper():
            continue
        values = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        found |= {one for one in values if isinstance(one, str)}
    return found


def test_no_name_of_a_convention_and_none_of_ours_is_spelled_elsewhere() -> None:
    ours = {name for name in told() if name.startswith("gateway.") and name != names.OTHER_SPAN}
    elsewhere = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for path in (ROOT / "gateway").rglob("*.py")
        if path.name != "names.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and (node.value in ours or _OF_CONVENTIONS.fullmatch(node.value))
    ]
    assert elsewhere == []


def test_every_verdict_has_its_action() -> None:
    assert names.POLICY_ACTION.keys() == set(Effect)


@pytest.mark.parametrize("metric", TABLE)
def test_the_default_translation_of_a_metric_in_otlp_is_its_name_in_prometheus(metric: str) -> None:
    # Dots become underscores, a unit of seconds and the mark of a counter are appended, an annotation is not.
    row = TABLE[metric]
    translated = names.otlp_name(metric).replace(".", "_")
    if metric.endswith("_seconds"):
        assert row.unit in ("", "s")
        translated += "_seconds"
    if row.type == "counter":
        translated += "_total"
    assert translated == metric
    assert tuple(map(names.label_of, row.attributes or row.labels)) == row.labels


def test_the_docs_name_every_attribute_span_and_variable() -> None:
    text = OBSERVE.read_text()
    attributes = {name for name in told() if _OF_CONVENTIONS.fullmatch(name) or name.startswith("gateway.")}
    missing = attributes - set(names.OTLP_NAME.values()) - {names.OTHER_SPAN}
    assert {name for name in missing if f"`{name}`" not in text} == set()
    assert [sampler for sampler in SAMPLERS if f"`{sampler}`" not in text] == []
    assert [name for name in VARIABLES if f"`{name}`" not in text] == []


def test_the_examples_in_the_docs_are_yaml_and_name_metrics_that_exist() -> None:
    blocks = re.findall(r"```yaml \w+\.yaml\n(.*?)```", OBSERVE.read_text(), re.DOTALL)
    collector, alerts = map(yaml.safe_load, blocks)
    assert set(collector["service"]["pipelines"]) == {"traces", "metrics", "logs"}
    rules = alerts["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    used = {name for rule in rules for name in re.findall(r"\b(?:gateway|gen_ai|mcp)_\w+", rule["expr"])}
    labels = {label for row in TABLE.values() for label in row.labels}
    assert {re.sub(r"_(?:bucket|count|sum)$", "", name) for name in used - labels} <= set(TABLE)
