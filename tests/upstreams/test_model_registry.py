"""Providers from settings: what each becomes, what is told about mistakes, and reloads under load."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from gateway import settings
from gateway.actions import ModelTarget, Reply
from gateway.clock import Ids, SystemClock
from gateway.errors import Refusal
from gateway.upstreams.demo import DemoProvider
from gateway.upstreams.models import Models
from gateway.upstreams.openai import OpenAiProvider
from gateway.upstreams.proxies import proxy_of
from gateway.upstreams.wire import Wire
from tests.upstreams.origin import CHUNKED, END, Exchange, Origin, always, chunk, ok

TARGET = ModelTarget(alias="a", provider="p", model="m")
ANSWER = ok(b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}', b"content-type: application/json")
_providers: TypeAdapter[dict[str, settings.Provider]] = TypeAdapter(dict[str, settings.Provider])


class House:
    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ
        self.wire = Wire()
        self.models = Models(
            wire=self.wire,
            clock=SystemClock(),
            new_id=Ids(SystemClock()).new,
            jitter=lambda: 0.5,
            resolve=lambda reference: settings.resolve(reference, environ),
            resolve_text=lambda text: settings.resolve_text(text, environ),
            proxy_of=lambda url: proxy_of(url, environ),
        )

    async def use(self, **providers: Any) -> None:
        built, problems = await self.models.prepare(_providers.validate_python(providers))
        assert problems == []
        self.models.swap(built)

    async def ask(self, name: str = "p") -> Reply:
        reply = await self.models.provider(name).invoke(TARGET, b'{"messages":[]}', stream=False, request_id="r")
        assert isinstance(reply, Reply)
        return reply

    async def aclose(self) -> None:
        await self.models.aclose()
        await self.wire.aclose()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    one = House({"KEY": "sk-from-env-123", "TEAM": "blue"})
    yield one
    await one.aclose()


async def test_each_type_of_provider_is_built_as_settings_say(house: House) -> None:
    await house.use(
        d={"type": "demo"},
        o={"type": "openai", "on_hang_up": "cancel", "drain_s": 9.0},
        q={"type": "openai", "on_hang_up": "drain", "drain_s": 9.0},
    )
    demo, cancel, drain = (house.models.provider(name) for name in "doq")
    assert isinstance(demo, DemoProvider)
    assert isinstance(cancel, OpenAiProvider)
    assert (cancel.name, cancel.on_hang_up, cancel.drain_s) == ("o", "cancel", 0.0)
    assert (drain.on_hang_up, drain.drain_s) == ("drain", 9.0)


async def test_references_in_url_headers_and_key_are_followed(house: House) -> None:
    async with Origin(always(ANSWER)) as origin:
        house.environ["URL"] = origin.url + "/v1"
        await house.use(
            p={"type": "openai", "base_url": "env:URL", "api_key": "env:KEY", "headers": {"x-team": "env:TEAM"}}
        )
        await house.ask()
    [request] = origin.requests
    assert request.header("authorization") == "Bearer sk-from-env-123"
    assert request.header("x-team") == "blue"


async def test_a_secret_that_a_header_refers_to_is_hidden_where_a_provider_repeats_it(house: House) -> None:
    said = b'{"error":{"message":"key quiet-azure-value of my-team-name is bad"}}'
    async with Origin(always(ok(said, b"content-type: application/json", status=b"400 Bad Request"))) as origin:
        house.environ |= {"URL": origin.url + "/v1", "AZURE": "quiet-azure-value"}
        headers = {"x-azure-key": "env:AZURE", "x-team": "my-team-name"}
        await house.use(p={"type": "openai", "base_url": "env:URL", "api_key": "env:KEY", "headers": headers})
        with pytest.raises(Refusal, match=r"key \[redacted\] of my-team-name is bad"):
            await house.ask()


@pytest.mark.parametrize(
    "provider",
    [
        {"type": "openai", "base_url": "http://user:pw@a.example/"},
        {"type": "openai", "base_url": "http://a b/"},
        {"type": "openai", "base_url": "http:///v1"},
        {"type": "openai", "headers": {"x y": "1"}},
        {"type": "openai", "headers": {"x-a": "1\r\nx-b: 2"}},
        {"type": "openai", "headers": {"content-length": "1"}},
        {"type": "openai", "headers": {"x-a": "env:NOT_SET"}},
        {"type": "demo", "script": "/nowhere.yaml"},
    ],
)
async def test_what_can_t_work_is_told_and_nothing_is_swapped(house: House, provider: dict[str, Any]) -> None:
    built, problems = await house.models.prepare(_providers.validate_python({"p": provider, "fine": {"type": "demo"}}))
    assert "p" not in built
    assert problems
    with pytest.raises(Refusal):
        house.models.provider("fine")


async def test_a_script_s_mistake_is_told_with_its_line(house: House, tmp_path: Path) -> None:
    script = tmp_path / "s.yaml"
    script.write_text("version: 1\nrules:\n  - sai: x\n")
    _, problems = await house.models.prepare(_providers.validate_python({"p": {"type": "demo", "script": script}}))
    assert (problems[0].file, problems[0].line) == (str(script), 3)


async def test_an_unknown_provider_is_a_refusal(house: House) -> None:
    with pytest.raises(Refusal) as caught:
        house.models.provider("nobody")
    assert caught.value.code == "model_not_found"


async def test_a_reload_lets_a_stream_end_where_it_began(house: House) -> None:
    go = asyncio.Event()

    async def play(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(CHUNKED + chunk(b"data: 1\n\n"))
        await go.wait()
        await exchange.send(chunk(b"data: [DONE]\n\n") + END)

    async with Origin(play) as old, Origin(always(ANSWER)) as new:
        await house.use(p={"type": "openai", "base_url": old.url})
        stream = await house.models.provider("p").invoke(TARGET, b"{}", stream=True, request_id="r")
        assert not isinstance(stream, Reply)
        pieces = aiter(stream)
        assert await anext(pieces) == b"data: 1\n\n"
        await house.use(p={"type": "openai", "base_url": new.url})
        await house.ask()
        go.set()
        assert [piece async for piece in pieces] == [b"data: [DONE]\n\n"]
        await stream.aclose()
    assert len(new.requests) == 1


@pytest.mark.parametrize("how", ["asked for", "a proxy leads there"])
async def test_aiohttp_is_used_where_it_is_asked_for_or_a_proxy_leads_there(how: str) -> None:
    """The proxy is a server that sees the absolute URL of a host that does not exist."""
    async with Origin(always(ANSWER)) as origin:
        if how == "asked for":
            house = House({})
            await house.use(p={"type": "openai", "base_url": origin.url, "transport": "aiohttp"})
        else:
            house = House({"HTTP_PROXY": origin.url, "NO_PROXY": "127.0.0.1"})
            await house.use(
                p={"type": "openai", "base_url": "http://models.invalid/v1"},
                local={"type": "openai", "base_url": origin.url},
            )
            assert (await house.ask("local")).status == 200
            assert house.wire.connections() == 1
        reply = await house.ask()
        assert json.loads(reply.body)["usage"]["prompt_tokens"] == 1
        assert house.wire.connections() == (0 if how == "asked for" else 1)
        await house.aclose()
    if how != "asked for":
        assert origin.requests[1].head.startswith(b"POST http://models.invalid/v1/chat/completions HTTP/1.1\r\n")


def test_neither_litellm_nor_aiohttp_is_imported_where_nothing_needs_them() -> None:
    code = (
        "import sys, gateway.upstreams.models; print([m for m in ('litellm', 'aiohttp', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
