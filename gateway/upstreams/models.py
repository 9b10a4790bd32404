"""The model providers of the configuration: built beside the old ones, then swapped in.

`prepare` builds a whole new set and touches nothing; `swap` puts it in force in one step. Requests under way keep
the provider they began with. Connections belong to the shared transports: they survive a reload, and those that
lead where no provider points any more expire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from gateway.actions import ModelTarget, Reply, ReplyStream
from gateway.clock import Clock
from gateway.documents import Problem
from gateway.errors import Refusal
from gateway.settings import DemoProvider as DemoSettings
from gateway.settings import OpenAIProvider as OpenAiSettings
from gateway.settings import Provider as Settings
from gateway.settings import resolve_value
from gateway.upstreams import demo_script, longtail
from gateway.upstreams.budget import AnswerBudget
from gateway.upstreams.credential import Credential
from gateway.upstreams.demo import DemoProvider
from gateway.upstreams.longtail import LongTailProvider
from gateway.upstreams.openai import OpenAiProvider
from gateway.upstreams.retries import Retries
from gateway.upstreams.wire import Transport, Wire
from gateway.upstreams.wire_head import aim, head


class ModelProvider(Protocol):
    """A place where models live. `on_hang_up`: drain or cancel; `drain_s`: how long a drain may take."""

    name: str
    on_hang_up: str
    drain_s: float

    async def invoke(
        self, target: ModelTarget, body: bytes, *, stream: bool, request_id: str, traceparent: str | None = None
    ) -> Reply | ReplyStream: ...

    async def aclose(self) -> None: ...


class Models:
    """The providers in force, by name. Fails closed: an unknown name is a refusal.

    resolve: a secret reference to its value; resolve_text: a text that may be one; proxy_of: a URL to the proxy
    that leads there, or None; jitter: numbers in [0, 1); sleep: takes seconds.
    """

    def __init__(
        self,
        *,
        wire: Wire,
        clock: Clock,
        new_id: Callable[[], str],
        jitter: Callable[[], float],
        resolve: Callable[[str], str],
        resolve_text: Callable[[str], str],
        proxy_of: Callable[[str], str | None],
        budget: AnswerBudget | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._wire = wire
        self._clock = clock
        self._new_id = new_id
        self._jitter = jitter
        self._resolve = resolve
        self._resolve_text = resolve_text
        self._proxy_of = proxy_of
        self._budget = budget or AnswerBudget()
        self._sleep = sleep
        self._proxied: dict[str | None, Transport] = {}
        self._providers: dict[str, ModelProvider] = {}
        self._warmed = False  # litellm was imported

    async def prepare(self, settings: Mapping[str, Settings]) -> tuple[dict[str, ModelProvider], list[Problem]]:
        """Providers as `settings` says, ready to answer, and what is wrong with them."""
        built: dict[str, ModelProvider] = {}
        problems: list[Problem] = []
        for name, one in settings.items():
            try:
                built[name] = self._build(name, one, problems)
            except ValueError as fault:
                problems.append(Problem(f"providers.{name}", 0, f"{fault}.", "Correct it."))
        for provider in built.values():
            if isinstance(provider, LongTailProvider):
                await provider.warm()
                self._warmed = True
        return built, problems

    def swap(self, providers: dict[str, ModelProvider]) -> None:
        """Put what `prepare` built in force."""
        self._providers = providers

    def provider(self, name: str) -> ModelProvider:
        """The provider of that name. Raises Refusal `model_not_found`."""
        provider = self._providers.get(name)
        if provider is None:
            raise Refusal("model_not_found", f"The model's provider {name} is not configured; tell its operator.")
        return provider

    async def aclose(self) -> None:
        """Close all that providers hold open, but not the shared `wire`."""
        for provider in self._providers.values():
            await provider.aclose()
        for transport in self._proxied.values():
            await transport.aclose()
        if self._warmed:
            await longtail.close_clients()

    def _build(self, name: str, one: Settings, problems: list[Problem]) -> ModelProvider:
        if isinstance(one, DemoSettings):
            return self._demo(name, one, problems)
        credential = Credential(
            None if one.api_key is None else one.api_key.reference, self._resolve, of=f"model provider {name}"
        )
        shared: dict[str, Any] = {
            "credential": credential,
            "retries": Retries(one.retries, clock=self._clock, jitter=self._jitter, sleep=self._sleep),
            "clock": self._clock,
            "budget": self._budget,
            "connect_timeout_s": one.connect_timeout_s,
            "first_byte_timeout_s": one.first_byte_timeout_s,
            "idle_timeout_s": one.idle_timeout_s,
            "on_hang_up": one.on_hang_up,
            "drain_s": one.drain_s if one.on_hang_up == "drain" else 0.0,
        }
        if isinstance(one, OpenAiSettings):
            base_url = self._resolve_text(one.base_url)
            headers = {key: resolve_value(value, self._resolve) for key, value in one.headers.items()}
            extra = [(key.encode(), value.encode()) for key, value in headers.items()]
            head(aim("POST", base_url).start, extra, 0, framed=True)  # what can't be sent is told now
            transport = self._transport(base_url, one.transport)
            return OpenAiProvider(name, base_url=base_url, headers=headers, transport=transport, **shared)
        params = {
            key: resolve_value(value, self._resolve) if isinstance(value, str) else value
            for key, value in one.params.items()
        }
        return LongTailProvider(name, prefix=one.prefix, params=params, **shared)

    def _demo(self, name: str, one: DemoSettings, problems: list[Problem]) -> ModelProvider:
        script, found = demo_script.load(one.script)
        problems += found
        if script is None:
            raise ValueError("its script can't be used")
        return DemoProvider(name, script, clock=self._clock, new_id=self._new_id, sleep=self._sleep)

    def _transport(self, base_url: str, wanted: str) -> Transport:
        """`Wire`, unless aiohttp is asked for or a proxy leads to the provider."""
        proxy = self._proxy_of(base_url)
        if proxy is None and wanted != "aiohttp":
            return self._wire
        if proxy not in self._proxied:
            # Late: it costs 200 ms and 10 MB that most gateways never need.
            from gateway.upstreams.wire_aiohttp import WireAiohttp

            self._proxied[proxy] = WireAiohttp(proxy=proxy)
        return self._proxied[proxy]
