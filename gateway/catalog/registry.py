"""Reads the folder of manifests: all problems of all files at once, with line numbers.

Never contacts a server. A manifest that is switched off is still read, so that a typo in it is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway import documents, known_secrets
from gateway.catalog.manifests import Manifest, Paths, Stdio, StreamableHttp
from gateway.documents import Document, Problem
from gateway.settings import UnresolvedReference, follow, is_reference, short_secret

_SUFFIXES = (".yaml", ".yml")


def read_registry(
    folder: Path, environ: Mapping[str, str] = os.environ
) -> tuple[tuple[Manifest, ...] | None, list[Problem]]:
    """The manifests in `folder` in order of their server's name; None if any has an error, and all problems.

    Manifests whose `enabled` is false, or a reference that leads nowhere, are checked and left out; those that
    are in have references that can be followed now (their values are not kept).
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        return None, [Problem(str(folder), 0, f"The tool registry cannot be read: {reason}.", "Correct the path.")]
    problems: list[Problem] = []
    manifests: list[Manifest] = []
    seen: dict[str, str] = {}
    for file in files:
        document, found = documents.load(file)
        problems += found
        if document is None:
            continue
        manifest, found = documents.validate(document, Manifest)
        problems += found
        if manifest is None:
            continue
        if manifest.server in seen:
            message = f"The server {manifest.server!r} is already described in {seen[manifest.server]}."
            problems.append(document.problem(("server",), message, "Rename one, or merge the files."))
        seen.setdefault(manifest.server, file.name)
        if why_off(manifest, environ) is None:
            problems += _unresolved(document, manifest, environ)
            manifests.append(beside(manifest, file.absolute().parent))
    if documents.errors(problems):
        return None, problems
    return tuple(sorted(manifests, key=lambda manifest: manifest.server)), problems


def described(folder: Path) -> tuple[Manifest, ...]:
    """Every valid manifest in `folder`, also of servers that take no part; none where it cannot be read."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    except OSError:
        return ()
    read = (documents.read(file, Manifest)[0] for file in files)
    return tuple(manifest for manifest in read if manifest is not None)


def switched_off(folder: Path, environ: Mapping[str, str] = os.environ) -> list[tuple[str, str]]:
    """Server and reason of each valid manifest in `folder` that takes no part, for people."""
    found = []
    for file in sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file()):
        manifest, _ = documents.read(file, Manifest)
        reason = None if manifest is None else why_off(manifest, environ)
        if manifest is not None and reason is not None:
            found.append((manifest.server, reason))
    return found


def why_off(manifest: Manifest, environ: Mapping[str, str] = os.environ) -> str | None:
    """Why the server takes no part; None if it does."""
    if isinstance(manifest.enabled, bool):
        return None if manifest.enabled else "enabled: false"
    try:
        follow(manifest.enabled, environ)
    except UnresolvedReference as error:
        reason = str(error).removesuffix(".")
        return reason.removeprefix("the environment variable ")
    return None


def beside(manifest: Manifest, folder: Path) -> Manifest:
    """A working directory and paths are relative to the manifest."""
    transport = manifest.transport
    if not isinstance(transport, Stdio):
        return manifest

    def absolute(path: str) -> str:
        return path if is_reference(path) else str(folder / path)

    paths = Paths(read=tuple(map(absolute, transport.paths.read)), write=tuple(map(absolute, transport.paths.write)))
    cwd = None if transport.cwd is None else folder / transport.cwd
    return manifest.model_copy(update={"transport": transport.model_copy(update={"cwd": cwd, "paths": paths})})


def _unresolved(document: Document, manifest: Manifest, environ: Mapping[str, str]) -> Iterator[Problem]:
    for place, reference in _references(manifest):
        if not is_reference(reference):
            continue
        try:
            value = follow(reference, environ)
        except UnresolvedReference as error:
            mend = "Set it, or make `enabled` depend on it."
            yield document.problem(place, f"{'.'.join(map(str, place))}: {error}", mend)
            continue
        if place[-1] == "url" and not value.startswith(("http://", "https://")):
            message = f"transport.url: {reference} does not lead to an http:// or https:// URL."
            yield document.problem(place, message, "Correct what it leads to.")
        is_secret = place[0] == "credential" or place[:2] == ("transport", "env")
        if is_secret and not known_secrets.is_path(value):
            known_secrets.remember(reference, value)
            yield from short_secret(document, place, reference, environ)


def references_of(manifest: Manifest) -> list[str]:
    """The texts of a manifest that may be references, `enabled` included."""
    texts = [text for _, text in _references(manifest)]
    return texts if isinstance(manifest.enabled, bool) else [manifest.enabled, *texts]


def _references(manifest: Manifest) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if manifest.credential is not None:
        yield ("credential",), manifest.credential.reference
    transport = manifest.transport
    if isinstance(transport, StreamableHttp):
        yield ("transport", "url"), transport.url
    elif isinstance(transport, Stdio):
        for index, word in enumerate(transport.command):
            yield ("transport", "command", index), word
        for name, value in transport.env.items():
            yield ("transport", "env", name), value
        for kind, paths in (("read", transport.paths.read), ("write", transport.paths.write)):
            for index, path in enumerate(paths):
                yield ("transport", "paths", kind, index), path
