"""`gateway check` names each secret that is too short to be redacted, and says no word of its value."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.commands.checking import look
from gateway.known_secrets import KNOWN
from tests.gateway_house import CONFIG, ROOT

PROVIDERS = """\
  up: {type: openai, base_url: "http://h/v1", api_key: "env:SHORT_KEY", headers: {x-azure: "env:SHORT_HEADER"}}
  long: {type: openai, base_url: "http://h/v1", api_key: "env:LONG_KEY"}
"""


def manifest(server: str, transport: Mapping[str, object], **more: object) -> str:
    return json.dumps({"version": 1, "server": server, "owner": "dana", "transport": transport, **more})


def test_each_short_secret_is_warned_of_by_its_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    registry = tmp_path / "tools_registry"
    registry.mkdir()
    (tmp_path / "gateway.yaml").write_text(CONFIG.replace("providers:\n", f"providers:\n{PROVIDERS}"))
    (tmp_path / "short").write_text("qzf-4\n")
    http = {"type": "streamable_http", "url": "https://h/mcp"}
    (registry / "http.yaml").write_text(manifest("remote", http, credential=f"file:{tmp_path / 'short'}"))
    env = {"TOKEN": "env:SHORT_TOKEN", "LONG": "env:LONG_KEY", "PLAIN": "qzp-5"}
    (registry / "stdio.yaml").write_text(manifest("local", {"type": "stdio", "command": ["x"], "env": env}))
    short = {"SHORT_KEY": "qzk-1", "SHORT_HEADER": "qzh-2", "SHORT_TOKEN": "qzt-345"}
    for name, value in {**short, "LONG_KEY": "12345678"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GATEWAY_DATABASE_URL", "postgresql://gateway:qzd-6@h/d")
    monkeypatch.setenv("GATEWAY_REDIS_URL", "redis://:long-enough@h/0")
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "var"))
    problems, _ = look(tmp_path / "gateway.yaml")
    found = [one for one in problems if "fewer than 8 bytes" in one.message]
    named = sorted((Path(one.file).name, one.message.split()[0]) for one in found)
    assert named == [
        ("environment", "The"),
        ("gateway.yaml", "providers.up.api_key:"),
        ("gateway.yaml", "providers.up.headers.x-azure:"),
        ("http.yaml", "credential:"),
        ("stdio.yaml", "transport.env.TOKEN:"),
    ]
    assert all(one.severity == "warning" for one in found)
    assert all(one.line for one in found if one.file != "environment")
    assert "env:SHORT_KEY leads to" in "".join(one.message for one in found)
    assert "qz" not in "".join(map(str, problems))
    assert set(KNOWN.redactor.texts) == {"12345678", "long-enough"}
