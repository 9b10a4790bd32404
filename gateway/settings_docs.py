"""Writes docs/reference/settings.md from the models, so that the reference can't drift from the code.

python -m gateway.settings_docs > docs/reference/settings.md
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway import process
from gateway.config import Config
from gateway.process import Process
from gateway.references import Secret

_HEAD = """# Settings

<!-- Written by `python -m gateway.settings_docs`; a test compares it with the code. -->

## gateway.yaml

Version 1, reloadable (`SIGHUP`, a change of the file, or `POST /api/v1/reload`), except `environment`, `audit` and
`server`: a reload that changes one of them is refused, a restart takes it. Paths are relative to the file.
An unknown key is an error; `gateway check` tells all problems with their lines. YAML is read as YAML 1.2: `no` and
`on` are words. Secrets stand here only as references: `env:NAME` or `file:/absolute/path`.

`<name>` stands for a name of yours, `[]` for each item of a list.

| key | type | default | meaning |
|---|---|---|---|
"""

_PROCESS = """
## Environment

What can't change while the process runs. An empty variable counts as not set.

| variable | type | default | meaning |
|---|---|---|---|
"""


def markdown() -> str:
    """The whole page."""
    rows = [_row(*row) for row in _walk(Config, "")]
    variables = [
        _row(process.variable(name), _type(field.annotation), _default(field), field.description or "")
        for name, field in Process.model_fields.items()
    ]
    return _HEAD + "".join(rows) + _PROCESS + "".join(variables)


def _row(key: str, kind: str, default: str, meaning: str) -> str:
    cells = (f"`{key}`", kind, default, meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        key = prefix + name
        inner, suffix = _models(field.annotation)
        if not inner:
            yield key, _type(field.annotation), _default(field), field.description or ""
            continue
        if field.description:
            yield key + suffix, "", "", field.description
        for member in inner:
            tag = member.model_fields.get("type")
            shown = f" ({get_args(tag.annotation)[0]})" if tag is not None and len(inner) > 1 else ""
            for child, kind, default, meaning in _walk(member, f"{key}{suffix}."):
                yield child + shown, kind, default, meaning


def _models(annotation: Any) -> tuple[list[type[BaseModel]], str]:
    """The models inside a type, and how one gets to them."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _models(arguments[0])
    if origin in (Union, types.UnionType):
        found = [model for member in arguments for model in _models(member)[0]]
        suffixes = [_models(member)[1] for member in arguments if _models(member)[0]]
        return found, suffixes[0] if suffixes else ""
    if origin is dict:
        found, suffix = _models(arguments[1])
        return found, f".<name>{suffix}"
    if origin in (list, tuple):
        found, suffix = _models(arguments[0])
        return found, f"[]{suffix}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], ""
    return [], ""


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(member) for member in arguments if member is not type(None))
    if origin is dict:
        return f"mapping to {_type(arguments[1])}"
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}"
    if annotation is Any:
        return "anything"
    names = {str: "text", bool: "`true`, `false`", int: "whole number", float: "number", Secret: "reference"}
    return names.get(annotation) or str(annotation.__name__).lower()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined or value is None or value in ("", {}, ()):
        return ""
    return f"`{value.value if isinstance(value, Enum) else value}`"


if __name__ == "__main__":
    sys.stdout.write(markdown())
