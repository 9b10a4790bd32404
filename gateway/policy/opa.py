"""The connection to an OPA server: opa-python-client's async client, told how to behave.

Left to itself the client tries a failed question three times with pauses, sends every document through Python's JSON
writer, and opens connections without a bound. Here a question is asked once, its bytes are sent as they are, and
connections are kept and bounded. Owns the connections.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
import msgspec
from opa_client.opa_async import AsyncOpaClient

from gateway.errors import Refusal
from gateway.known_secrets import KNOWN

CONNECTIONS = 64  # at once; more questions wait for one, within their time
_MAX_ANSWER_BYTES = 1024 * 1024
_IDLE_S = 60.0  # a connection is kept this long without a question
# A built-in that fails is an error and not undefined, as in this process; the answer names the bundles it is made by.
_QUESTION = "/data/gateway/decision?strict-builtin-errors=true&provenance=true"
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


class Unanswered(Exception):  # noqa: N818 - said of the question
    """The server did not answer, or with something that is no answer. The text says what, for operators."""


class Answered(NamedTuple):
    """What the server said to a question."""

    result: bytes | None  # JSON; None: undefined
    revision: str  # of the bundle that decided; empty: it has none
    decision_id: str  # in the server's decision log; empty: it keeps none


class Failed(NamedTuple):
    """The policy failed while it was evaluated."""

    place: str  # file:line, or nothing
    message: str
    revision: str = ""  # the server does not say


class _Bundle(msgspec.Struct, frozen=True):
    revision: str = ""


class _Provenance(msgspec.Struct, frozen=True):
    bundles: dict[str, _Bundle] = {}


class _Answer(msgspec.Struct):
    decision_id: str = ""
    provenance: _Provenance = _Provenance()
    result: msgspec.Raw = msgspec.Raw()


class _Location(msgspec.Struct):
    file: str = ""
    row: int = 0


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""
    location: _Location | None = None


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


_read_answer = msgspec.json.Decoder(_Answer).decode
_read_errors = msgspec.json.Decoder(_Errors).decode
# What a policy did wrong. A question that was cut off (eval_cancel_error) is no fault of it.
_POLICY_FAULTS = frozenset(
    {"eval_builtin_error", "eval_type_error", "eval_conflict_error", "eval_with_merge_error", "eval_internal_error"}
)


class OpaClient(AsyncOpaClient):
    """One server, asked for decisions. Belongs to the event loop of its first question."""

    def __init__(self, url: str) -> None:
        """Raises Refusal `invalid_configuration` if `url` is not the bare address of a server."""
        host, port, is_tls = _address(url)
        super().__init__(host=host, port=port, ssl=is_tls, retries=0)  # type: ignore[no-untyped-call]
        self.address = f"{host}:{port}"

    async def _init_session(self) -> None:
        context = None
        if self.ssl:
            import ssl

            context = ssl.create_default_context()
        self._connector = aiohttp.TCPConnector(ssl=context or True, limit=CONNECTIONS, keepalive_timeout=_IDLE_S)
        self._session = aiohttp.ClientSession(
            connector=self._connector, timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar()
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self.close_connection()  # type: ignore[no-untyped-call]

    async def decide(self, document: bytes, *, timeout_s: float, token: str | None = None) -> Answered | Failed:
        """Ask for the decision on a document. Raises Unanswered, at the latest after `timeout_s`."""
        if self._session is None:
            await self._init_session()
        headers = {**_HEADERS, "Authorization": f"Bearer {token}"} if token else _HEADERS
        try:
            async with asyncio.timeout(timeout_s):
                status, body = await self._ask(b'{"input":' + document + b"}", headers)
        except TimeoutError:
            raise Unanswered(f"It did not answer within {timeout_s:g} s.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unanswered(f"It cannot be reached: {str(error)[:200] or type(error).__name__}.") from None
        return _read(status, body)

    async def _ask(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        try:
            return await self._ask_once(body, headers)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # A kept connection that the server closed meanwhile. Nothing was answered, and asking changes nothing.
            return await self._ask_once(body, headers)

    async def _ask_once(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        url = self.root_url + _QUESTION
        async with self._request("POST", url, data=body, headers=headers, allow_redirects=False) as response:
            answer = bytearray()
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > _MAX_ANSWER_BYTES:
                    response.close()
                    raise Unanswered(f"Its answer is larger than {_MAX_ANSWER_BYTES} bytes.")
            return response.status, bytes(answer)


def _address(url: str) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https") or parts.path not in ("", "/") or parts.query:
        raise Refusal(
            "invalid_configuration",
            "GATEWAY_OPA_URL is not the address of an OPA server; write for example http://127.0.0.1:8181.",
        )
    if parts.username is not None:
        raise Refusal(
            "invalid_configuration", "GATEWAY_OPA_URL holds a name or password; OPA is shown policy.opa.token instead."
        )
    is_tls = parts.scheme == "https"
    return f"[{host}]" if ":" in host else host, port or (443 if is_tls else 80), is_tls


def _read(status: int, body: bytes) -> Answered | Failed:
    try:
        if status == 200:
            found = _read_answer(body)
            return Answered(bytes(found.result) or None, _revision(found.provenance.bundles), found.decision_id[:128])
        if status == 500:
            for error in _read_errors(KNOWN.redactor.redact_json(body)).errors:
                if error.code in _POLICY_FAULTS:
                    return Failed(_place(error.location), error.message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unanswered(f"Its answer (status {status}) is not OPA's.") from None
    raise Unanswered(f"It answered with status {status}.")


def _place(where: _Location | None) -> str:
    return "" if where is None or not where.file else f"{where.file.lstrip('/')}:{where.row}"


def _revision(bundles: dict[str, _Bundle]) -> str:
    """Of the bundle that our package comes from: the only one, or where there are several, the one called gateway."""
    found = next(iter(bundles.values())) if len(bundles) == 1 else bundles.get("gateway")
    return "" if found is None else found.revision
