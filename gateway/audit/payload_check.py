"""Holds every kept payload against its commitment in the record."""

from __future__ import annotations

from typing import Any

from gateway.audit.vault import Sealed, Vault, VaultError
from gateway.verify.commitments import commitment_holds
from gateway.verify.trail import Findings


class PayloadCheck:
    """Takes records in order with what the vault stores for them. A payload may be missing only if erased."""

    def __init__(self, wrapping_key: bytes, findings: Findings) -> None:
        self.checked = 0
        self.erased = 0
        self._findings = findings
        self._vault = Vault(wrapping_key, "", capture="full", cap_bytes=0, random_bytes=lambda _: b"")
        self._gone: dict[str, int] = {}
        self._erasures: set[str] = set()

    def add(self, idx: int, leaf: dict[str, Any], sealed: Any, wrapped: Any) -> None:
        """Check one record's payloads."""
        try:
            self._add(idx, leaf, sealed, wrapped)
        except (KeyError, TypeError, AttributeError):
            self._findings.add("record_malformed", f"record {idx} does not name its payloads as records do", idx)

    def _add(self, idx: int, leaf: dict[str, Any], sealed: Any, wrapped: Any) -> None:
        if leaf["type"] == "payload.erased":
            self._erasures.add(leaf["labels"].get("subject.record", ""))
        stated = {part["name"]: part for part in leaf["payloads"]}
        if not stated:
            return
        if sealed is None or wrapped is None:
            self._gone[leaf["id"]] = idx
            return
        try:
            kept = self._vault.open(leaf["id"], Sealed(bytes(sealed), bytes(wrapped)))
        except VaultError as error:
            self._findings.add("payload_altered", f"record {idx}: {error}", idx)
            return
        if {item.name for item in kept} != stated.keys():
            self._findings.add("payload_altered", f"record {idx}: other payloads are stored than it names", idx)
            return
        for item in kept:
            part = stated[item.name]
            if item.data is None:
                if part["key"] is not None:
                    self._findings.add("payload_missing", f"record {idx}: its {item.name} is not stored", idx)
                continue
            if not commitment_holds(part["commitment"], item.salt, item.name, item.media, item.data):
                self._findings.add("payload_altered", f"record {idx}: its {item.name} is not what it commits to", idx)
            self.checked += 1

    def finish(self) -> None:
        """All records were seen: what is gone must have been erased on the record."""
        for leaf_id, idx in self._gone.items():
            if leaf_id in self._erasures:
                self.erased += 1
            else:
                self._findings.add("payload_missing", f"record {idx}: its payloads are gone and were not erased", idx)
