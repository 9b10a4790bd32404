"""Tool servers that the gateway runs: what they are kept from, and what `gateway check` finds about it.

Owns: the list of paths that no tool server gets, from all that is configured. Never does: start or confine one
(`gateway/upstreams/confinement/`).
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import documents
from gateway.catalog.manifests import Manifest, Stdio
from gateway.catalog.registry import beside, references_of, why_off
from gateway.config import Config, StdioServers
from gateway.documents import Document, Problem
from gateway.process import Process, secret_files
from gateway.settings import UnresolvedReference, resolve_text
from gateway.upstreams.confinement import plan
from gateway.upstreams.confinement.plan import Guarded, Wanted
from gateway.upstreams.confinement.support import Mode, Support
from gateway.upstreams.tool_servers import StdioServerConfig

_FILE = "file:"


def guarded(
    process: Process,
    config: Config,
    manifests: Iterable[Manifest],
    *,
    common_dir: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Guarded:
    """The paths that no tool server gets. `common_dir`: the data directory that workers share."""
    secret = {process.data_dir, common_dir or process.data_dir, process.keys_dir or process.data_dir / "keys"}
    secret |= set(secret_files(environ))
    texts = [*_texts(config.model_dump(mode="json")), *(text for one in manifests for text in references_of(one))]
    secret |= {Path(text.removeprefix(_FILE)) for text in texts if text.startswith(f"{_FILE}/")}
    fixed = {process.config, config.tool_registry, config.policy.path}
    return Guarded(*(tuple(sorted(path.absolute() for path in paths)) for paths in (secret, fixed)))


def server_config(manifest: Manifest, transport: Stdio, settings: StdioServers, kept: Guarded) -> StdioServerConfig:
    """What upstreams need to run the server of a manifest."""
    return StdioServerConfig(
        server=manifest.server,
        command=transport.command,
        env=tuple(sorted(transport.env.items())),
        cwd=transport.cwd,
        call_timeout_s=manifest.call_timeout_s,
        read=transport.paths.read,
        write=transport.paths.write,
        mode=mode_of(transport, settings),
        user=transport.user or settings.user,
        guarded=kept,
    )


def mode_of(transport: Stdio, settings: StdioServers) -> Mode:
    """A manifest may say what holds for its server, but not less than the settings require."""
    return "required" if settings.confinement == "required" else transport.confinement or settings.confinement


def problems(
    process: Process, config: Config, support: Support, environ: Mapping[str, str] = os.environ
) -> list[Problem]:
    """What keeps servers from being confined as configured, and what changes for a manifest of an older version."""
    found: list[tuple[Document, Manifest]] = []
    for file in sorted(config.tool_registry.glob("*.y*ml")):
        document, _ = documents.load(file)
        manifest = None if document is None else documents.validate(document, Manifest)[0]
        if document is not None and manifest is not None and why_off(manifest, environ) is None:
            found.append((document, beside(manifest, file.absolute().parent)))
    kept = guarded(process, config, (manifest for _, manifest in found), environ=environ)
    told: list[Problem] = []
    for document, manifest in found:
        if isinstance(manifest.transport, Stdio):
            told += _of_server(document, manifest, manifest.transport, config.stdio, kept, support, environ)
    return told


def _of_server(
    document: Document,
    manifest: Manifest,
    transport: Stdio,
    settings: StdioServers,
    kept: Guarded,
    support: Support,
    environ: Mapping[str, str],
) -> Iterator[Problem]:
    mode = mode_of(transport, settings)
    place = ("transport",)
    if transport.confinement is not None and transport.confinement != mode:
        message = (
            f"confinement: {transport.confinement} has no effect, since gateway.yaml says stdio.confinement: {mode}."
        )
        yield document.problem((*place, "confinement"), message, "Remove one of them.", warning=True)
    user = transport.user or settings.user
    if user is not None:
        yield from _of_user(document, (*place, "user") if transport.user else place, user)
    if mode == "off":
        message = f"The tool server {manifest.server} is not confined: it reads and writes what the gateway's user can."
        yield document.problem(place, message, "Fine if you trust its program like the gateway's own.", warning=True)
        return
    if support.shortfall is not None:
        message = f"The tool server {manifest.server} can't be confined fully here: {support.shortfall}."
        advice = (
            "Run it on a system that can, or say stdio.confinement: best_effort."
            if mode == "required"
            else ("Run it as another user (stdio.user), or on a system that can.")
        )
        yield document.problem(place, message, advice, warning=mode != "required")
    try:
        wanted = _wanted(manifest, transport, environ)
    except (UnresolvedReference, OSError):
        return  # which the registry tells
    for conflict in plan.conflicts(wanted, kept):
        yield document.problem((*place, *conflict.place), conflict.message, conflict.advice)
    for index, path in plan.uncovered(wanted):
        message = f"The command names the folder {path}, which the server may not use: it is confined."
        yield document.problem(
            (*place, "command", index), message, "Add it to transport.paths, under read or write.", warning=True
        )


def _of_user(document: Document, place: tuple[str, ...], user: str) -> Iterator[Problem]:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        yield document.problem(place, f"This system has no user {user}.", "Correct `user`.")
        return
    if os.geteuid() not in (0, entry.pw_uid):
        message = f"Only a gateway that runs as root can run a tool server as {user}."
        yield document.problem(place, message, "Run the gateway as root, or unset `user`.", warning=True)


def _wanted(manifest: Manifest, transport: Stdio, environ: Mapping[str, str]) -> Wanted:
    def paths(texts: tuple[str, ...]) -> tuple[Path, ...]:
        return tuple(Path(resolve_text(text, environ)) for text in texts)

    return Wanted(
        server=manifest.server,
        command=tuple(resolve_text(word, environ) for word in transport.command),
        cwd=transport.cwd,
        read=paths(transport.paths.read),
        write=paths(transport.paths.write),
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
