"""The policies in force as one file that OPA servers load: the same files, the same revision, two engines.

The bundle (https://www.openpolicyagent.org/docs/management-bundles) is a gzipped tar: the modules under their names,
all data merged as `data.json`, and a manifest with the engine's revision and the roots that the bundle owns, so that
it can be loaded beside others. The same policies give the same bytes. Tests are left out.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping

from gateway.policy import tree
from gateway.policy.rego import parse

MEDIA_TYPE = "application/gzip"


def bundle(modules: Mapping[str, str], data_json: str, revision: str) -> bytes:
    """Modules (file to text) and data as an OPA bundle. Raises RegoFault if a module does not parse."""
    data = json.loads(data_json)
    packages = (tree.package(parse(file, text)) for file, text in modules.items())
    roots = {package[0] for package in packages if package} | set(data)
    manifest = {"revision": revision, "roots": sorted(roots), "rego_version": 1}
    files = {
        "/.manifest": json.dumps(manifest, sort_keys=True),
        "/data.json": json.dumps(data, sort_keys=True, ensure_ascii=False),
        **{f"/{file}": text for file, text in sorted(modules.items())},
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, text in files.items():
            raw = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(raw), 0o644  # owner, group and time are all 0
            archive.addfile(entry, io.BytesIO(raw))
    return gzip.compress(packed.getvalue(), mtime=0)
