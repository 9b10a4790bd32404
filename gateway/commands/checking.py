"""check: everything that can be wrong with the files, all at once, without starting anything."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gateway.commands.shared import CONFIG, PROBLEM, ConfigFile, Json, show

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.documents import Problem
    from gateway.policy import Examined


def check(config: ConfigFile = CONFIG, as_json: Json = False) -> None:
    """Validate configuration, registry, policies, grants and references; report ALL problems with file and line.

    Runs the policies' tests too; a failing test is an error here, whatever `policy.tests` says.

    \b
    Example:
      gateway check --config gateway.yaml
    """
    from gateway.documents import errors

    problems, summary = look(config)
    failed = errors(problems)
    rows = [{"id": f"{one.file}:{one.line}", **asdict(one)} for one in problems]
    lines = [str(one) for one in problems]
    if problems:
        lines.append(f"{_count(len(failed), 'error')}, {_count(len(problems) - len(failed), 'warning')}.")
    if summary and not failed:
        lines += f"ok: {summary}".splitlines()
    show(rows, as_json, lines)
    if failed:
        raise typer.Exit(PROBLEM)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def look(config: Path) -> tuple[list[Problem], str]:
    """All problems, and what was found if there are none. One broken file does not hide those of the others."""
    from gateway import documents, process, settings, stdio_servers
    from gateway.catalog.registry import described, read_registry, switched_off
    from gateway.commands import deciders
    from gateway.documents import Problem
    from gateway.known_names import known_names
    from gateway.policy import Examined, build, failed, run
    from gateway.upstreams.confinement.support import support

    own, problems = process.load()
    if own is not None and own.data_dir.is_dir() and own.data_dir.stat().st_mode & 0o077:
        message = "The data directory is open to other users of this machine."
        problems.append(Problem(str(own.data_dir), 0, message, f"Run chmod 700 {own.data_dir}.", "warning"))
    found, more = settings.load(config)
    problems = [*problems, *more]
    if found is not None:
        registry, policies = found.tool_registry, found.policy.path
    else:
        # The file has errors, but where it says that the others are may still be read.
        document, _ = documents.load(config)
        folder, data = config.absolute().parent, {} if document is None else document.data
        registry = folder / _text(data.get("tool_registry"), "tool_registry", "tools_registry")
        policies = folder / _text(data.get("policy"), "path", "policies")
    manifests: Any = None
    if registry.is_dir():
        manifests, more = read_registry(registry, os.environ)
        problems += more
    engine = examined = None
    if policies.is_dir():
        examined = Examined(policies)
        engine, more = build(examined)
        problems += more
        if engine is not None:
            trials, more = run(examined)
            problems += more
            problems += [failed(one) for one in trials if not one.passed]
    data_dir = None if own is None or own.is_scaled else own.data_dir
    if found is not None and examined is not None:
        registered = None if data_dir is None else deciders.registered(data_dir)
        known = known_names(found, described(registry), registered or (), complete=registered is not None)
        problems += examined.unknown_names(known)
    if found is not None and own is not None and manifests is not None:
        problems += stdio_servers.problems(own.model_copy(update={"config": config}), found, support())
    if found is not None:
        problems += _who_decides(config, found, data_dir, examined)
    unique = list(dict.fromkeys(problems))
    if found is None or manifests is None or engine is None:
        return unique, ""
    tools = sum(len(one.tools) for one in manifests)
    off = [f"{server} ({reason})" for server, reason in switched_off(registry, os.environ)]
    kind = "manifest" if len(off) == 1 else "manifests"
    told = f"\n{len(off)} {kind} switched off by this shell's variables: {', '.join(off)}." if off else ""
    return unique, (
        f"{len(found.models)} models, {len(found.agents)} agents, {tools} tools of {len(manifests)} enabled servers,"
        f" policy {engine.revision[:19]}.{told}"
    )


def _who_decides(path: Path, config: Config, data_dir: Path | None, examined: Examined | None) -> list[Problem]:
    """Cases that nobody may decide, as far as that can be seen from the files."""
    from gateway import documents
    from gateway.commands import deciders

    known = None if data_dir is None else deciders.reviewers(data_dir)
    document, _ = documents.load(path)
    if data_dir is None or known is None or document is None:
        return []
    found = list(deciders.nobody_left(document, config, known, deciders.registered(data_dir) or ()))
    asked = [] if examined is None else examined.approvals_asked()
    return found + list(deciders.too_few_hands(asked, known, deciders.operators(data_dir), config.sign_in.keys))


def _text(value: Any, key: str, default: str) -> str:
    inner = value.get(key) if isinstance(value, dict) else value
    return inner if isinstance(inner, str) and inner else default
