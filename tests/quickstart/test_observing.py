"""Only what `make run` writes lets undeclared tools pass; the gateway.yaml that people copy does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import App
from gateway.quickstart.start import DEFAULTS, defaults_in
from gateway.settings import load
from tests.footing import PUBLIC_URL, process_in
from tests.gateway_house import ROOT

BALANCE = {"type": "function", "function": {"name": "get_balance", "parameters": {"type": "object", "properties": {}}}}


def test_the_shipped_file_does_not_observe_and_the_quickstart_does(tmp_path: Path) -> None:
    shipped, _ = load(ROOT / "gateway.yaml", {})
    assert shipped is not None
    assert shipped.undeclared_client_tools == "deny"
    assert "undeclared_client_tools: observe" not in (ROOT / "gateway.yaml").read_text()
    started, problems = load(ROOT / "gateway.yaml", {}, defaults=defaults_in(tmp_path))
    assert started is not None
    assert started.undeclared_client_tools == "observe"
    assert started.model_copy(update={"undeclared_client_tools": "deny"}) == shipped
    assert problems == []


def test_what_the_configuration_says_wins(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    (tmp_path / "tools_registry").mkdir()
    (tmp_path / "gateway.yaml").write_text("version: 1\nundeclared_client_tools: escalate\n")
    config, _ = load(tmp_path / "gateway.yaml", {}, defaults=defaults_in(tmp_path))
    assert config is not None
    assert config.undeclared_client_tools == "escalate"


def test_the_file_is_kept_as_people_left_it(tmp_path: Path) -> None:
    assert defaults_in(tmp_path) == tmp_path / DEFAULTS
    (tmp_path / DEFAULTS).write_text("undeclared_client_tools: deny\n")
    assert defaults_in(tmp_path).read_text() == "undeclared_client_tools: deny\n"


def test_a_mistake_in_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / DEFAULTS).write_text("undeclared_client_tools: watch\n")
    config, problems = load(ROOT / "gateway.yaml", {}, defaults=tmp_path / DEFAULTS)
    assert config is None
    assert "undeclared_client_tools" in problems[0].message


async def proposed(app: App) -> dict[str, Any]:
    """What the agent is left with of an answer that proposes a tool which no manifest declares."""
    _, key = await app.registry.keys.create("demo-agent", person=None)
    body = {"model": "demo", "messages": [{"role": "user", "content": "What is the balance?"}], "tools": [BALANCE]}
    transport = httpx.ASGITransport(app=app.asgi)
    async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL, headers={"x-api-key": key}) as agent:
        answer = await agent.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["choices"][0]["message"])


@pytest.mark.parametrize(("defaults", "passes"), [(defaults_in, True), (lambda _: None, False)])
async def test_an_undeclared_tool_passes_with_the_quickstart_only(
    tmp_path: Path, request: pytest.FixtureRequest, defaults: Callable[[Path], Path | None], passes: bool
) -> None:
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    shutil.copytree(ROOT / "tools_registry", tmp_path / "tools_registry")
    shutil.copy(ROOT / "gateway.yaml", tmp_path)
    app = App(process_in(tmp_path, request), defaults=defaults(tmp_path))
    await app.start()
    try:
        assert ("tool_calls" in await proposed(app)) is passes
        if passes:  # and a change of the file is taken up as one of gateway.yaml is
            (tmp_path / DEFAULTS).unlink()
            assert await app.changed()
            await app.reload("test")
            assert "tool_calls" not in await proposed(app)
    finally:
        await app.stop(1)
