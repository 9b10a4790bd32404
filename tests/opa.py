"""Open Policy Agent for tests: the real server where its program is found, else its library from a Python wheel.

`make .opa/.made` gets one of the two. Where both are missing, tests that need one are skipped, or fail with
GATEWAY_TEST_STRICT=1; so are those that need the server where only the library is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn, Protocol

import msgspec
import pytest

from gateway.actions import Decision
from gateway.clock import Clock, SystemClock
from gateway.config import OpaServer as OpaSettings
from gateway.policy.answer import policy_error, read_answer
from gateway.policy.engine import EmbeddedEngine
from gateway.policy.reading import Unreadable, read_document
from gateway.policy.server import ServerEngine
from gateway.quickstart.opa_server import OpaServer, find

LIBRARY = Path(__file__).parents[1] / ".opa" / "libopabridge.so"


def program() -> Path:
    """The OPA program; the test is skipped, or fails in strict runs, where there is none."""
    found = find()
    return found or missing("the opa program is not here (`make .opa/.made` gets it where there is go)")


def missing(why: str) -> NoReturn:
    """Skip, or fail in strict runs. A machine without go has only the library, which is not a fault of it."""
    if os.environ.get("GATEWAY_TEST_STRICT") == "1" and not LIBRARY.exists():
        pytest.fail(why)
    pytest.skip(why)


async def never_in_force(_revision: str) -> bool:
    """For `ServerEngine.was_in_force`: no other revision is ours."""
    return False


def serve(folder: Path, engine: EmbeddedEngine) -> OpaServer:
    """A server, started, that decides by the policies of `engine`."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / "bundle.tar.gz"
    bundle.write_bytes(engine.bundle())
    server = OpaServer(program(), folder, bundle=bundle)
    server.start()
    return server


class Asked(Protocol):
    """Something that decides as OPA does."""

    async def decide(self, document: bytes) -> Decision: ...


@contextlib.asynccontextmanager
async def asking(
    url: str, engine: EmbeddedEngine, *, clock: Clock | None = None, **more: Any
) -> AsyncIterator[ServerEngine]:
    """A `ServerEngine` for the server at `url`, which should decide as `engine` does. It has heard of the server."""
    more.setdefault("was_in_force", never_in_force)
    settings = more.pop("settings", OpaSettings(timeout_s=10))
    asked = ServerEngine(url, engine, settings, clock=clock or SystemClock(), **more)
    try:
        await asked.look()
        yield asked
    finally:
        await asked.aclose()


@contextlib.asynccontextmanager
async def deciding(folder: Path, engine: EmbeddedEngine) -> AsyncIterator[Asked]:
    """OPA with the policies of `engine`, never from memory: the server, or the library where there is no program."""
    if find() is None and LIBRARY.exists():
        yield Library(LIBRARY, engine)
        return
    server = serve(folder, engine)
    try:
        async with asking(server.url, engine) as asked:
            asked._memo = None
            yield asked
    finally:
        await asyncio.to_thread(server.stop)


class Library:
    """OPA as a C library (opa-golib-python-bindings), which fails on errors of built-ins as the server is told to."""

    def __init__(self, library: Path, engine: EmbeddedEngine) -> None:
        self._opa = ctypes.CDLL(str(library))
        self._opa.OpaNew.restype = ctypes.c_uint64
        self._opa.OpaFreeString.argtypes = [ctypes.c_void_p]
        self._opa.OpaFreeString.restype = None
        for name, given in (("OpaAddPolicy", 2), ("OpaAddData", 2), ("OpaEvalDocument", 2)):
            function = getattr(self._opa, name)
            flags = [ctypes.c_int, ctypes.c_int] if name == "OpaEvalDocument" else []
            function.argtypes = [ctypes.c_uint64, *[ctypes.c_char_p] * given, *flags]
            function.restype = ctypes.c_void_p
        self._handle = self._opa.OpaNew()
        self._revision = engine.revision
        self._checked("OpaAddData", b"", engine.data_json.encode())
        for file, text in engine.modules.items():
            self._checked("OpaAddPolicy", file.encode(), text.encode())

    async def decide(self, document: bytes) -> Decision:
        try:
            read_document(document)
        except Unreadable as fault:
            return policy_error(fault.reason, self._revision, document)
        found = self._call("OpaEvalDocument", b"gateway.decision", document, 0, 0)
        if found.get("error"):
            return policy_error(str(found["error"]), self._revision, document)
        try:
            value = found["result"][0]["expressions"][0]["value"]
            return read_answer(msgspec.json.encode(value), self._revision, document)
        except (KeyError, IndexError, TypeError, msgspec.DecodeError) as error:
            return policy_error(str(error), self._revision, document)

    def _checked(self, name: str, *given: Any) -> None:
        error = self._call(name, *given).get("error")
        assert not error, error

    def _call(self, name: str, *given: Any) -> dict[str, Any]:
        pointer = getattr(self._opa, name)(self._handle, *given)
        try:
            told: dict[str, Any] = json.loads(ctypes.string_at(pointer))
            return told
        finally:
            self._opa.OpaFreeString(pointer)
