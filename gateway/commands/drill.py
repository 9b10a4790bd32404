"""drill: try the kill switch for real, and measure it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit

import typer

from gateway.commands.shared import DATA_DIR, PROBLEM, CommandError, DataDir, Json, complain, show, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx

    from gateway.commands.client import Api

BOUND_S = 1.0
_PATIENCE_S = 5.0
_ANSWER_S = 3.0
_ASK_EVERY_S = 0.02
_KEY_VALID_S = 120
_OWN = ("127.0.0.1", "::1", "localhost")


def drill(
    agent: Annotated[str, typer.Argument(help="An agent to suspend for a moment, and resume.", metavar="AGENT")],
    model: Annotated[str | None, typer.Option("--model", help="Open a stream of this model on each replica.")] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Suspend an agent for a moment and measure how soon every replica refuses it and ends its streams.

    Exit 1 if one of them took longer than a second, or did not answer (no times). The agent can't act meanwhile; it is
    resumed in any case, unless somebody else suspended it before.

    \b
    Example:
      gateway drill demo-agent --model demo
    """
    from gateway.commands.client import Api

    api = Api(data_dir)
    known = [one for one in api.get("/status")["replicas"] if one["state"] != "ended" and one["url"]]
    apart = [one["name"] for one in known if is_apart(one)]
    if apart:
        complain(f"Reached on their own machine only, and not asked: {', '.join(apart)}; run the drill there too.")
    places = [(one["name"], one["url"]) for one in known if one["name"] not in apart] or [("gateway", api.url)]
    path = f"/agents/{quote(agent, safe='')}"
    if api.get(path)["status"] != "active":
        raise CommandError(f"The agent {agent} is suspended already; take one that may act.")
    suspension = _Suspension(api, path)
    key = api.post(f"{path}/keys", {"valid_s": _KEY_VALID_S})
    try:
        found = asyncio.run(_measure(suspension, places, key["secret"], model))
    finally:
        try:
            suspension.end()
        finally:
            api.delete(f"{path}/keys/{quote(key['id'], safe='')}")
    rows = [{"id": name, **times} for (name, _), times in zip(places, found, strict=True)]
    late = [row for row in rows if not _in_time(row, model)]
    told = [*table(rows, ["id", "refused_after_ms", "stream_ended_after_ms"])]
    well = (
        f"All {len(rows)} that were asked within a second; {len(apart)} were not." if apart else "All within a second."
    )
    told.append(f"{len(late)} of {len(rows)} took too long." if late else well)
    show(rows, as_json, told)
    if late:
        raise typer.Exit(PROBLEM)


def is_apart(replica: dict[str, Any]) -> bool:
    """Whether its address is one of another machine's own: here somebody else would answer in its place."""
    return urlsplit(replica["url"]).hostname in _OWN and replica["name"].partition("/")[0] != socket.gethostname()


def _in_time(row: dict[str, Any], model: str | None) -> bool:
    times = [row["refused_after_ms"], *([row["stream_ended_after_ms"]] if model else [])]
    return all(one is not None and one <= BOUND_S * 1000 for one in times)


class _Suspension:
    """The one that the drill makes. Owns that it is ended, and that nobody else's is."""

    def __init__(self, api: Api, path: str) -> None:
        self._api = api
        self._path = path
        self._begun = False

    def begin(self) -> None:
        """Suspend the agent. Raises CommandError, also where somebody else has done so meanwhile."""
        if self._status() != "active":
            raise CommandError("Somebody suspended the agent while the drill was prepared; it stays suspended.")
        self._begun = True  # before the answer: one that does not come may have been a yes
        self._api.post(f"{self._path}/suspend", {"reason": "A drill of the kill switch."})

    def end(self) -> None:
        """Resume the agent if this suspended it."""
        if self._begun and self._status() != "active":
            self._api.post(f"{self._path}/resume", {"reason": "The drill is over."})

    def _status(self) -> str:
        return str(self._api.get(self._path)["status"])


async def _measure(
    suspension: _Suspension, places: list[tuple[str, str]], secret: str, model: str | None
) -> list[dict[str, int | None]]:
    """The times of each place; none of one that did not answer before the clock ran, for it can't be in time."""
    import httpx

    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(headers=headers, timeout=_PATIENCE_S + 30, trust_env=False) as client:
        # Before streams are opened: waiting for one that hangs, those of the others would come to their own end.
        urls = await _answering(client, [url for _, url in places], "/livez")
        begun = {url: asyncio.Event() for url in urls}
        streams = {
            url: asyncio.create_task(_stream(client, url, model, event))
            for url, event in begun.items()
            if model is not None
        }
        if streams:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    await asyncio.gather(*(event.wait() for event in begun.values()))
            for opened in streams.values():
                if opened.done():
                    opened.result()  # raises where none was opened
        # The key must be known everywhere before the clock runs.
        known = await _answering(client, urls, "/v1/models")
        for url, status in known.items():
            if status not in (200, 429):  # at its limit it is known too
                raise CommandError(f"{url} does not take the agent's key ({status}): see its log.")
        if not known:
            raise CommandError(f"No replica answers within {_ANSWER_S:g} seconds: see whether they still run.")
        asked = {url: asyncio.create_task(_refused(client, url)) for url in known}
        began_s = time.monotonic()
        await asyncio.to_thread(suspension.begin)
        tasks = [*asked.values(), *(streams[url] for url in known if url in streams)]
        await asyncio.wait(tasks, timeout=_PATIENCE_S)
        found = [
            {
                "refused_after_ms": _after(asked.get(url), began_s),
                "stream_ended_after_ms": _after(streams.get(url), began_s),
            }
            for _, url in places
        ]
        for task in (*asked.values(), *streams.values()):
            task.cancel()
        await asyncio.gather(*asked.values(), *streams.values(), return_exceptions=True)
        return found


async def _answering(client: httpx.AsyncClient, urls: Iterable[str], path: str) -> dict[str, int]:
    """The status with which each of them answers; without those that don't, for whom nobody else waits."""
    import httpx

    async def ask(url: str) -> int | None:
        with contextlib.suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                return (await client.get(f"{url}{path}")).status_code
        return None

    wanted = list(urls)
    said = await asyncio.gather(*map(ask, wanted))
    return {url: status for url, status in zip(wanted, said, strict=True) if status is not None}


def _after(task: asyncio.Task[float] | None, began_s: float) -> int | None:
    """Milliseconds; None where it did not come, or came before there was a reason (a stream that was over)."""
    if task is None or not task.done() or task.cancelled() or task.exception() is not None or task.result() < began_s:
        return None
    return int((task.result() - began_s) * 1000)


async def _refused(client: httpx.AsyncClient, url: str) -> float:
    while True:
        answer = await client.get(f"{url}/v1/models")
        if answer.status_code == 403:
            return time.monotonic()
        await asyncio.sleep(_ASK_EVERY_S)


async def _stream(client: httpx.AsyncClient, url: str, model: str | None, begun: asyncio.Event) -> float:
    import httpx

    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Tell me a long story."}]}
    with contextlib.suppress(httpx.HTTPError):  # cut off is ended too
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                told = (await answer.aread()).decode(errors="replace")[:300]
                begun.set()
                raise CommandError(f"{url} opened no stream of {model} ({answer.status_code}): {told}")
            async for _ in answer.aiter_raw():
                begun.set()
    return time.monotonic()
