"""What an action can be aimed at: models, tools of servers, tools of clients.

Owns: the manifests of tools_registry/, the live definitions that tool servers send, their digests and pins,
the snapshot in memory that every look-up reads, and a note of what agents declare that no manifest describes. A
reload builds a new snapshot and swaps it whole.
Never: contacts a server, decides who may use what, or knows agents (identity/ does).
Fails closed: what no manifest names does not exist for agents, and a tool whose definition is not the pinned
one, or can't be read without doubt, is quarantined: neither listed nor callable.
"""

from gateway.catalog.catalog import Catalog, PriceRow, Snapshot
from gateway.catalog.definitions import definition_digest
from gateway.catalog.manifests import Manifest
from gateway.catalog.registry import read_registry
from gateway.catalog.seen import SeenTools
from gateway.catalog.seen_tool import SeenTool
from gateway.catalog.sentences import render_sentence
from gateway.catalog.status import Learned, ServerStatus, ToolStatus

__all__ = [
    "Catalog",
    "Learned",
    "Manifest",
    "PriceRow",
    "SeenTool",
    "SeenTools",
    "ServerStatus",
    "Snapshot",
    "ToolStatus",
    "definition_digest",
    "read_registry",
    "render_sentence",
]
