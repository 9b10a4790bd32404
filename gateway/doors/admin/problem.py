"""Refusals as problem details (RFC 9457), and the frame around every request: id, size, faults, headers.

`type` is a path of ours that explains the code. `errors` lists what is wrong in a body, each at its JSON pointer
(RFC 6901).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.doors.admin.paths import API, FOR_AGENTS, SIGN_IN_BY_KEY
from gateway.doors.desk import WRONG_HOST
from gateway.errors import CODES, Refusal

MEDIA_TYPE = "application/problem+json"
ERRORS_PATH = "/api/v1/errors"
MAX_BODY_BYTES = 1024 * 1024
_TOO_LARGE = f"The request body is larger than {MAX_BODY_BYTES} bytes; administration takes no more."
_NUL_IN_ADDRESS = "The address has a NUL character (%00), which no name, id or cursor has; leave it out."
_log = logging.getLogger("gateway.admin")


class Problem(JSONResponse):
    """A problem details response."""

    media_type = MEDIA_TYPE


def problem(refusal: Refusal, request_id: str, errors: Sequence[dict[str, str]] = ()) -> Problem:
    """A refusal as its response."""
    code = CODES[refusal.code]
    body: dict[str, Any] = {
        "type": f"{ERRORS_PATH}/{refusal.code}",
        "title": code.meaning,
        "status": refusal.http_status,
        "detail": refusal.message,
        "code": refusal.code,
        "request_id": request_id,
    }
    if "case" in refusal.detail:
        body["case"] = refusal.detail["case"]
    if refusal.rules:
        body["rules"] = list(refusal.rules)
    if refusal.reasons:
        body["reasons"] = list(refusal.reasons)
    if errors:
        body["errors"] = list(errors)
    headers: dict[str, str] = {}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(refusal.retry_after_s)
    if refusal.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    return Problem(body, status_code=refusal.http_status, headers=headers)


def request_id_of(scope: Scope) -> str:
    """The id under which the request is logged and recorded."""
    return str(scope.get("state", {}).get("request_id", ""))


def install(
    app: FastAPI,
    new_id: Callable[[], str],
    unauthenticated: Callable[[], None],
    who: Callable[[Request], Awaitable[object]],
) -> None:
    """Make `app` answer every error as a problem, and frame its requests.

    `who` says who a request comes from, or raises Refusal: bodies of strangers are not read.
    """

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        if error.code in ("unauthenticated", "wrong_host"):
            unauthenticated()
        errors = [{"detail": text} for text in error.detail.get("problems", "").splitlines()]
        return problem(error, request_id_of(request.scope), errors)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [_told(detail) for detail in error.errors()]
        first = errors[0]
        message = f"The request is not valid: {first['pointer']}: {first['detail']}"
        return problem(Refusal("malformed", message), request_id_of(request.scope), errors)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path, method = request.url.path[:200], request.method
        if error.status_code == 404:
            refusal = Refusal("not_found", f"Nothing is served under {path}; /api/v1/openapi.json lists the API.")
        elif error.status_code == 405:
            allow = (error.headers or {}).get("allow", "")
            message = f"{path} does not take {method}{f', but {allow}' if allow else ''}."
            refusal = Refusal("method_not_allowed", message)
        elif error.status_code == 413:
            refusal = Refusal("too_large", _TOO_LARGE)
        else:
            refusal = Refusal("malformed", f"The request cannot be read: {error.detail}.")
        response = problem(refusal, request_id_of(request.scope))
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_middleware(_Frame, new_id=new_id, unauthenticated=unauthenticated, who=who)


def _told(detail: dict[str, Any]) -> dict[str, str]:
    where, *path = detail["loc"]
    pointer = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)
    place = f"#{pointer}" if where == "body" else f"{where} {'.'.join(str(step) for step in path)}".strip()
    return {"pointer": place, "detail": str(detail["msg"])}


def _has_a_body_for_people(scope: Scope) -> bool:
    """Whether it is a request to the API that a person makes, with a body: FastAPI parses that before it asks who."""
    path = scope["path"]
    if path == SIGN_IN_BY_KEY:  # takes no body, and tells by itself who asks
        return False
    return scope["method"] not in ("GET", "HEAD") and path.startswith(f"{API}/") and not path.startswith(FOR_AGENTS)


class _Frame:
    """Around every request: its id, a limit on its body, the last catch, and headers that hold everywhere."""

    def __init__(
        self,
        app: ASGIApp,
        new_id: Callable[[], str],
        unauthenticated: Callable[[], None],
        who: Callable[[Request], Awaitable[object]],
    ) -> None:
        self._app = app
        self._new_id = new_id
        self._unauthenticated = unauthenticated
        self._who = who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        started, size = False, 0

        async def framed_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise HTTPException(413)  # FastAPI lets only these pass while it reads a body
            return message

        async def framed_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                given = {name for name, _ in message["headers"]}
                ours = [
                    (b"x-request-id", request_id.encode()),
                    (b"request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                    (b"cache-control", b"no-store"),
                    (b"cross-origin-resource-policy", b"same-origin"),
                    (b"x-frame-options", b"DENY"),
                ]
                headers = [*message["headers"], *(one for one in ours if one[0] not in given)]
                message = {**message, "headers": headers}
            await send(message)

        wrong_host: Refusal | None = scope.get(WRONG_HOST)
        if wrong_host is not None:
            self._unauthenticated()
            await problem(wrong_host, request_id)(scope, receive, framed_send)
            return
        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:  # PostgreSQL's texts can't hold it
            await problem(Refusal("malformed", _NUL_IN_ADDRESS), request_id)(scope, receive, framed_send)
            return
        if _has_a_body_for_people(scope):
            try:
                await self._who(Request(scope))
            except Refusal as refusal:
                if refusal.code == "unauthenticated":
                    self._unauthenticated()
                await problem(refusal, request_id)(scope, receive, framed_send)
                return
        try:
            await self._app(scope, framed_receive, framed_send)
        except Exception:
            _log.exception("fault while answering %s %s (request %s)", scope["method"], scope["path"], request_id)
            if started:
                raise
            fault = Refusal("internal", f"The gateway failed; its log has the request id {request_id}.")
            await problem(fault, request_id)(scope, receive, framed_send)
