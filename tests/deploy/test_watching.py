"""The balancer's, Prometheus', Grafana's, OPA's and the collector's files: well-formed, and only names that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.errors import CODES
from gateway.quickstart.opa_server import configuration as opa_config
from gateway.telemetry.reference import reference as metrics_page
from tests.servers import missing

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/gateway.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
_NAME = re.compile(r"\b(?:gateway|gen_ai|mcp|process)_[a-z_]+(?=[{\[) ]|$)")
_OF_THE_CLIENT = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def known_metrics() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric, as documented."""
    rows = re.findall(r"^\| `(\w+)` \| `[^`]+` \| (\w+) \| ([^|]+) \|", metrics_page(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    return panels + [rule["expr"] for rule in ALERTS]


def program(name: str, package: str) -> str:
    """Where a program is; the test is skipped, or fails in strict runs, without it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        why = f"{name} is not installed (Debian: {package})"
        missing(why)
    return found


def checked(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=DEPLOY, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("expression", expressions())
def test_expressions_name_only_metrics_and_labels_that_exist(expression: str) -> None:
    known = known_metrics()
    labels: set[str] = {"job", "instance", "le"}
    for name in _NAME.findall(re.sub(r"by \([^)]*\)", "", expression)):
        if name in _OF_THE_CLIENT:
            continue
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        kind, has = known[name if name in known else base]
        assert (name == base) == (kind != "histogram"), f"{name} is a {kind}"
        assert ("rate(" in expression or "increase(" in expression) == (kind != "gauge"), f"{name} is a {kind}"
        labels |= has
    asked = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", expression))
    asked |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    assert asked <= labels


def test_alerts_ask_for_codes_that_exist_and_say_what_to_do() -> None:
    for rule in ALERTS:
        for codes in re.findall(r'code=~?"([^"]+)"', rule["expr"]):
            assert set(codes.split("|")) <= set(CODES)
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "action"}


def test_prometheus_takes_its_configuration_and_rules_and_every_expression(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    checked(promtool, "check", "config", "prometheus/prometheus.yml")
    rules = [{"record": "panel", "expr": expression.replace("$__rate_interval", "1m")} for expression in expressions()]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    said = checked(promtool, "check", "rules", "--lint=none", str(tmp_path / "panels.yml"))
    assert f"{len(rules)} rules found" in said


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    gone = {"alertname": "GatewayGone", "severity": "page"}
    one_gone = {"alertname": "GatewayReplicaGone", "severity": "ticket", "job": "gateway", "instance": "b"}
    latched = {"alertname": "GatewayLogLatched", "severity": "page", "instance": "a"}
    away = {"alertname": "GatewayEngineAway", "severity": "page", "code": "policy_unavailable"}

    def case(at: str, name: str, *labels: dict[str, str]) -> dict[str, Any]:
        return {"eval_time": at, "alertname": name, "exp_alerts": [{"exp_labels": labels_of(one)} for one in labels]}

    def labels_of(labels: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in labels.items() if name != "alertname"}

    series = [
        {"series": 'up{job="gateway", instance="a"}', "values": "1x20 0x20"},
        {"series": 'up{job="gateway", instance="b"}', "values": "1x10 0x30"},
        {"series": 'gateway_audit_latched{instance="a"}', "values": "0x9 1x30"},
        {"series": 'gateway_refusals_total{instance="a", code="policy_unavailable"}', "values": "0x10 1+1x30"},
        {"series": 'gateway_refusals_total{instance="a", code="denied_by_policy"}', "values": "0+9x40"},
    ]
    tests = [
        case("2m", "GatewayReplicaGone"),
        case("4m", "GatewayReplicaGone", one_gone),
        case("4m", "GatewayGone"),
        case("8m", "GatewayGone", gone),
        case("2m", "GatewayLogLatched"),
        case("4m", "GatewayLogLatched", latched),
        case("2m", "GatewayEngineAway"),
        case("5m", "GatewayEngineAway", away),
    ]
    # Annotations are compared too; what they say is nobody's business here.
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        del rule["annotations"]
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    suite = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "15s",
        "tests": [{"interval": "15s", "input_series": series, "alert_rule_test": tests}],
    }
    (tmp_path / "suite.yml").write_text(yaml.safe_dump(suite))
    checked(promtool, "test", "rules", str(tmp_path / "suite.yml"))


def test_the_dashboard_is_one_that_is_provisioned() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    for panel in DASHBOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": source["type"], "uid": source["uid"]}
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/gateway.yaml").read_text())["providers"][0]
    mounts = dict(reversed(volume.split(":")[:2]) for volume in COMPOSE["services"]["grafana"]["volumes"])
    assert mounts[provider["options"]["path"]] == "./deploy/grafana/dashboards"
    assert mounts["/etc/grafana/provisioning"] == "./deploy/grafana/provisioning"


def test_prometheus_scrapes_each_gateway_by_itself() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    gateways = [name for name in COMPOSE["services"] if name.startswith("gateway-")]
    assert targets == [f"{name}:8080" for name in gateways]
    assert all("watch" in COMPOSE["services"][name]["networks"] for name in [*gateways, "prometheus"])


def test_haproxy_takes_its_configuration() -> None:
    where = {"BALANCER_BIND": "127.0.0.1:1", "GATEWAY_1_ADDRESS": "127.0.0.1:2", "GATEWAY_2_ADDRESS": "127.0.0.1:3"}
    checked(program("haproxy", "haproxy"), "-c", "-f", "haproxy.cfg", **where)
    assert set(COMPOSE["services"]["balancer"]["environment"]) == set(where)
    text = (DEPLOY / "haproxy.cfg").read_text()
    assert set(re.findall(r'"\$(\w+)"', text)) == set(where)


def test_opa_is_told_what_our_own_launcher_tells_it() -> None:
    told = yaml.safe_load((DEPLOY / "opa.yaml").read_text())
    ours: Any = opa_config("http://balancer:8080", "token")
    assert told["services"]["gateway"]["credentials"]["bearer"] == {"token_path": "/run/secrets/opa_bundle_token"}
    ours["services"]["gateway"]["credentials"] = told["services"]["gateway"]["credentials"]
    ours["bundles"]["gateway"]["polling"] = told["bundles"]["gateway"]["polling"]
    assert told == ours


def test_the_collectors_pipelines_name_what_is_configured() -> None:
    config = yaml.safe_load((DEPLOY / "otel-collector.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for part, names in pipeline.items():
            assert set(names) <= set(config[part])
    assert pipeline["processors"][0] == "memory_limiter"
    assert set(config["service"]["extensions"]) <= set(config["extensions"])
    port = config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    endpoint = COMPOSE["services"]["gateway-1"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert endpoint == f"http://otel-collector:{port}"
