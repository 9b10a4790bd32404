"""What a tool server's failure means to an agent: a `Refusal` that names the server and says what is known.

`detail["dispatched"]` is "no" only where not one byte of the call left the gateway; `answered` is "yes" where the
server itself said that it failed; `refused` is "yes" where the protocol says that such an error comes before the call.
What else a server says of itself is no proof that nothing was done.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.errors import Refusal
from gateway.upstreams.failures import public
from gateway.upstreams.mcp_messages import RpcError
from gateway.upstreams.wire import WireError, WireTimeout
from gateway.upstreams.wire_head import sentence as sentence_of

# Header mismatch, missing capability, unsupported version: MCP 2026-07-28 has them checked before anything is run.
_BEFORE_THE_CALL = frozenset({-32020, -32021, -32022})


def failed(server: str, what: str, *, dispatched: bool = True) -> Refusal:
    """The server did not answer properly; `what` is a clause about it."""
    detail = {"server": server, "dispatched": "unknown" if dispatched else "no"}
    return Refusal("upstream_failed", f"The tool server {server} failed: {what}.", detail=detail)


def clause(server: str, message: str) -> str:
    """A sentence of this module as a clause about the server: "could not connect: the connection was refused"."""
    about = f"the tool server {server} "
    message = message.replace(f"Could not connect to the tool server {server}:", "could not connect:", 1)
    message = message.replace(f"The connection to the tool server {server} failed:", "the connection failed:", 1)
    return (message[len(about) :] if message.lower().startswith(about.lower()) else message).rstrip(".")


def not_connected(server: str, why: str) -> Refusal:
    """There is no connection to send anything over."""
    sentence = f"The tool server {server} is not connected: {why.rstrip('.')}; try again in a moment."
    return Refusal("upstream_failed", sentence, detail={"server": server, "dispatched": "no"})


def not_let_in(server: str, status: int) -> Refusal:
    """The server refused the gateway's credential a moment ago, so nothing more is sent until it lists its tools."""
    sentence = (
        f"The tool server {server} refused the gateway's own credential ({status}), so calls are not sent until it"
        " accepts one again; its owner must check the credential of its manifest."
    )
    return Refusal("upstream_failed", sentence, detail={"server": server, "dispatched": "no"})


def session_lost(server: str, status: int) -> Refusal:
    """The server does not know the session any more; whether it did the call before it said so is not known."""
    detail = {"server": server, "dispatched": "unknown", "answered": "yes", "upstream_status": str(status)}
    sentence = f"The tool server {server} answered that it does not know the gateway's session ({status})."
    return Refusal("upstream_failed", sentence, detail=detail)


def timed_out(server: str, timeout_s: float, *, dispatched: bool = True) -> Refusal:
    """No answer in time."""
    detail = {"server": server, "dispatched": "unknown" if dispatched else "no"}
    sentence = f"The tool server {server} did not answer within {timeout_s:g} s."
    return Refusal("upstream_timeout", sentence, detail=detail)


def of_wire(server: str, fault: WireError) -> Refusal:
    """The connection failed."""
    detail = {"server": server, "dispatched": "unknown" if fault.dispatched else "no"}
    code = "upstream_timeout" if isinstance(fault, WireTimeout) else "upstream_failed"
    return Refusal(code, sentence_of(f"tool server {server}", fault), detail=detail)


def of_rpc(server: str, error: RpcError, hide: Iterable[str] = ()) -> Refusal:
    """The server answered with a JSON-RPC error."""
    detail = {"server": server, "dispatched": "unknown", "answered": "yes", "upstream_code": str(error.code)}
    if error.code in _BEFORE_THE_CALL:
        detail["refused"] = "yes"
    said = public(error.message, hide) or "no reason given"
    return Refusal(
        "upstream_failed", f"The tool server {server} refused the call ({error.code}): {said}", detail=detail
    )


def of_status(server: str, status: int) -> Refusal:
    """The server answered with an HTTP status that is no answer to a call."""
    detail = {"server": server, "dispatched": "unknown", "answered": "yes", "upstream_status": str(status)}
    if status in (401, 403):
        sentence = (
            f"The tool server {server} refused the gateway's own credential ({status}); its owner must check the"
            " credential of its manifest. Nothing is wrong with yours."
        )
    elif 300 <= status < 400:
        sentence = f"The tool server {server} answered with a redirect ({status}), which is not followed."
    else:
        sentence = f"The tool server {server} failed (HTTP {status})."
    return Refusal("upstream_failed", sentence, detail=detail)
