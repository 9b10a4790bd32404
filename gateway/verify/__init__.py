"""Checks a trail of records without trusting who wrote it.

Owns: the RFC 6962 Merkle tree, C2SP signed notes and checkpoints, the canonical bytes of a record, payload
commitments, and the offline walk over a trail. Never does: open a network connection, write a file, or import
anything else of the gateway, so that an auditor can run it apart. Fails closed: what it did not check it does
not report as proved, and a doubt is a finding.
"""
