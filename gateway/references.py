"""References to secrets: `env:NAME` and `file:/path`. The configuration holds these, never the secret itself.

Fails closed: a reference that leads nowhere raises; a value that looks like a secret is never repeated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from gateway import known_secrets

_LATER = ("keyring:", "vault:")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
MAX_SECRET_BYTES = 64 * 1024


class UnresolvedReference(ValueError):  # noqa: N818 - a ValueError, so that pydantic tells it at its line
    """A reference that cannot be followed; the message names the reference, never a value."""


class Secret:
    """A checked reference to a secret. Holds no secret: `resolve` fetches it when it is needed."""

    __slots__ = ("reference",)

    def __init__(self, reference: str) -> None:
        self.reference = _checked(reference)

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reference == self.reference

    def __hash__(self) -> int:
        return hash((Secret, self.reference))

    def resolve(self, environ: Mapping[str, str] = os.environ) -> str:
        """The secret now. Raises `UnresolvedReference`."""
        return resolve(self.reference, environ)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._from_document,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda secret: secret.reference),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "description": "A reference: env:NAME or file:/path."}

    @classmethod
    def _from_document(cls, value: object) -> Secret:
        if isinstance(value, Secret):
            return value
        if not isinstance(value, str):
            raise ValueError("must be a reference such as env:NAME or file:/path.")  # noqa: TRY004
        return cls(value)


def is_reference(text: str) -> bool:
    """Whether `text` is written as a reference (it may still lead nowhere)."""
    return text.startswith(("env:", "file:", *_LATER))


def resolve(reference: str | Secret, environ: Mapping[str, str] = os.environ) -> str:
    """The secret that a reference leads to; it is redacted from now on. Raises `UnresolvedReference`."""
    text = reference.reference if isinstance(reference, Secret) else reference
    value = follow(text, environ)
    known_secrets.remember(text, value)
    return value


def follow(reference: str, environ: Mapping[str, str] = os.environ) -> str:
    """What a reference leads to, without surrounding white space, where it is only looked at.

    Raises `UnresolvedReference`.
    """
    text = _checked(reference)
    scheme, _, rest = text.partition(":")
    if scheme == "env":
        value = environ.get(rest, "").strip()
        if not value:
            raise UnresolvedReference(f"the environment variable {rest} is not set.")
        return value
    return _from_file(rest)


def resolve_text(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` itself, or what it leads to if it is a reference: a URL, a path, a word of a command, and no secret.

    Of a URL, a password or token in it is redacted from now on. Raises `UnresolvedReference`.
    """
    if not is_reference(text):
        return text
    value = follow(text, environ)
    if "://" in value:
        known_secrets.remember_url(text, value)
    return value


def resolve_value(text: str, resolve: Callable[[str], str] = resolve) -> str:
    """`text` itself, or the secret that it leads to if it is a reference. Raises what `resolve` raises."""
    return resolve(text) if is_reference(text) else text


def is_short_secret(text: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `text` is a reference to a secret that is too short to be redacted. Raises `UnresolvedReference`."""
    return is_reference(text) and known_secrets.is_short(follow(text, environ))


def _checked(reference: str) -> str:
    scheme, _, rest = reference.partition(":")
    if reference.startswith(_LATER):
        raise UnresolvedReference(f"{scheme}: references are not supported yet; use env:NAME or file:/path.")
    if scheme == "env" and _NAME.match(rest):
        return reference
    if scheme == "file" and rest.startswith("/") and "\0" not in rest:
        return reference
    if scheme == "env":
        raise UnresolvedReference("env: must be followed by the name of an environment variable.")
    if scheme == "file":
        raise UnresolvedReference("file: must be followed by an absolute path.")
    raise UnresolvedReference(
        "must be a reference such as env:NAME or file:/path, so that no secret stands in this file."
    )


def _from_file(path: str) -> str:
    try:
        with Path(path).open("rb") as stream:
            raw = stream.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise UnresolvedReference(f"the file {path} cannot be read: {error.strerror}.") from None
    if len(raw) > MAX_SECRET_BYTES:
        raise UnresolvedReference(f"the file {path} is larger than {MAX_SECRET_BYTES} bytes.")
    try:
        value = raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise UnresolvedReference(f"the file {path} is not UTF-8.") from None
    if not value:
        raise UnresolvedReference(f"the file {path} is empty.")
    return value
