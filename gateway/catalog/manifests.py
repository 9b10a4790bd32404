"""The shape of tools_registry/<server>.yaml, version 1: who answers for a server, and what each tool can do.

Nothing here is taken from the server itself: a tool's risk is what its owner wrote, not what the server claims.
"""

from __future__ import annotations

import re
import string
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from gateway.actions import ArgumentKind, ToolTarget
from gateway.protocols.tool_names import MAX_TOOL_NAME, TOOL_NAME_PATTERN
from gateway.settings import Secret, is_reference

SEPARATOR = "__"
# `gateway` names the gateway's own tools; `client` the tools of an agent that no manifest describes.
RESERVED_SERVERS = frozenset(("gateway", "client"))
MAX_SENTENCE = 300

ToolName = Annotated[str, StringConstraints(pattern=f"^{TOOL_NAME_PATTERN}$")]
ArgumentName = Annotated[str, StringConstraints(pattern=r"^[^\s{}:!]{1,128}$")]
_REFERENCE_IN_ENABLED = "must be true, false, or a reference such as env:NAME."
_HTTP_URL = re.compile(r"https?://[^\s/]+")


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Argument(_Shape):
    """What an argument means, so that policy and people need not guess from its name."""

    kind: Literal["payee", "money", "email", "address", "url", "path", "object_id", "text"]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = None
    unit: Literal["cents", "units"] | None = None

    @model_validator(mode="after")
    def _money_says_which(self) -> Argument:
        given = self.currency is not None, self.unit is not None
        if self.kind == "money" and not all(given):
            raise ValueError("an argument of kind money needs currency (such as USD) and unit (cents or units).")
        if self.kind != "money" and any(given):
            raise ValueError("currency and unit belong to arguments of kind money.")
        return self


class Outputs(_Shape):
    """Which top-level fields of a tool's answer do not come from strangers."""

    trusted: tuple[str, ...] = ()


class Tool(_Shape):
    """One tool, as its owner describes it."""

    risk: Literal["low", "medium", "high", "critical"]
    effect: Literal["read", "write", "destructive", "egress"]
    data_classes: tuple[str, ...] = ()
    reversible: bool = False
    idempotent: bool = False
    sentence: Annotated[str, StringConstraints(max_length=MAX_SENTENCE, pattern=r"^[^\x00-\x1f]+$")] | None = None
    arguments: dict[ArgumentName, Argument] = {}
    outputs: Outputs = Outputs()
    pin: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _sentence_fits_arguments(self) -> Tool:
        for name, kind in placeholders(self.sentence or ""):
            argument = self.arguments.get(name)
            if argument is None:
                raise ValueError(f"the sentence speaks of {name!r}, which is not among the arguments; declare it.")
            if kind and kind != argument.kind:
                raise ValueError(f"the sentence calls {name!r} {kind}, but it is declared as {argument.kind}.")
        return self


class StreamableHttp(_Shape):
    """A server that somebody runs; reached at `url`, which may be a reference."""

    type: Literal["streamable_http"]
    url: str
    connect_timeout_s: float = Field(default=5.0, gt=0, le=600)

    @field_validator("url")
    @classmethod
    def _a_url(cls, value: str) -> str:
        if not is_reference(value) and not _HTTP_URL.match(value):
            raise ValueError("must be an http:// or https:// URL, or a reference to one.")
        return value


class Paths(_Shape):
    """What a confined server may use beside the system's folders and its own. Each may be a reference; one that is not
    is relative to the manifest."""

    read: tuple[str, ...] = ()  # and execute
    write: tuple[str, ...] = ()  # and read, and execute


class Stdio(_Shape):
    """A server that the gateway runs as its child. It gets this environment and nothing of the gateway's own."""

    type: Literal["stdio"]
    command: Annotated[tuple[str, ...], Field(min_length=1)]  # words; each may be a reference
    env: dict[str, str] = {}  # values may be references
    cwd: Path | None = None  # read and written; without one it works in its home
    paths: Paths = Paths()
    confinement: Literal["required", "best_effort", "off"] | None = None  # None: as stdio.confinement says
    user: str | None = None  # None: as stdio.user says

    @field_validator("command")
    @classmethod
    def _words(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if not command[0] or any("\0" in word for word in command):
            raise ValueError("the command must be a list of words, the first of them a program.")
        return command


class Manifest(_Shape):
    """A tool server (`kind: mcp`, the gateway executes) or an agent's own tools (`kind: client`)."""

    version: Literal[1]
    server: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    kind: Literal["mcp", "client"] = "mcp"
    title: str = ""
    owner: Annotated[str, StringConstraints(min_length=1)]
    enabled: bool | str = True  # a reference: enabled where it leads to something
    transport: Annotated[StreamableHttp | Stdio, Field(discriminator="type")] | None = None
    credential: Secret | None = None
    call_timeout_s: float = Field(default=60.0, gt=0, le=3600)
    review: date | None = None
    tools: dict[ToolName, Tool] = {}

    @field_validator("server")
    @classmethod
    def _unambiguous(cls, server: str) -> str:
        # Then `server__tool` has one reading: up to the first double underscore is the server.
        if SEPARATOR in server or server.endswith("_"):
            raise ValueError("a server's name must not contain '__' nor end with '_'; agents see server__tool.")
        if server in RESERVED_SERVERS:
            raise ValueError(f"the name {server!r} is the gateway's own; choose another.")
        return server

    @field_validator("enabled", mode="before")
    @classmethod
    def _bool_or_reference(cls, value: object) -> object:
        if isinstance(value, bool):
            return value
        if not isinstance(value, str) or not is_reference(value):
            raise ValueError(_REFERENCE_IN_ENABLED)
        return Secret(value).reference

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        if self.kind == "mcp" and self.transport is None:
            raise ValueError("a server of kind mcp needs a transport.")
        if self.kind == "client" and (self.transport is not None or self.credential is not None):
            raise ValueError("kind client has neither transport nor credential: the agent executes these tools.")
        if isinstance(self.transport, Stdio) and self.credential is not None:
            raise ValueError("a stdio server takes no credential; hand it over in transport.env.")
        for name in self.tools:
            if self.kind == "mcp" and len(self.server) + len(SEPARATOR) + len(name) > MAX_TOOL_NAME:
                raise ValueError(
                    f"{self.server}__{name} is longer than {MAX_TOOL_NAME} characters; shorten the server's name."
                )
        return self

    def target(self, name: str) -> ToolTarget:
        """The tool as this manifest describes it, without a live definition."""
        tool = self.tools[name]
        return ToolTarget(
            server=self.server,
            tool=name,
            server_kind=self.kind,
            owner=self.owner,
            risk=tool.risk,
            effect=tool.effect,
            data_classes=tool.data_classes,
            reversible=tool.reversible,
            idempotent=tool.idempotent,
            sentence=tool.sentence,
            arguments={
                key: ArgumentKind(argument.kind, argument.currency, argument.unit)
                for key, argument in tool.arguments.items()
            },
            trusted_outputs=tool.outputs.trusted,
            review=None if self.review is None else self.review.isoformat(),
        )


def placeholders(sentence: str) -> list[tuple[str, str]]:
    """The (argument, kind or '') pairs that a sentence speaks of. Raises ValueError for a malformed one."""
    found = []
    try:
        parts = list(string.Formatter().parse(sentence))
    except ValueError as error:
        raise ValueError(f"the sentence can't be read: {error}; write {{name}} or {{name:kind}}.") from None
    for _, name, kind, conversion in parts:
        if name is None:
            continue
        if not name or conversion or "{" in (kind or "") or any(mark in name for mark in ".["):
            raise ValueError("a placeholder of the sentence must be {name} or {name:kind}.")
        found.append((name, kind or ""))
    return found
