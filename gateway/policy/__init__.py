"""policy/: is this action allowed? Rego in process, asked with a typed input document.

Owns: the input document (version 1) and its JSON Schema, the engine, the dialect that policies may use, loading and
testing a folder of policies. Never does: keep state between decisions, read a clock or the network from a policy,
call another room. Fails closed: whatever goes wrong while deciding is a deny with the rule `policy_error`, and a
folder with one problem gives no engine, so that the old one stays in force.
"""

from __future__ import annotations

from gateway.policy.answer import POLICY_ERROR
from gateway.policy.decider import Decider
from gateway.policy.document import document, json_schema
from gateway.policy.engine import EmbeddedEngine, Explanation, PolicyEngine
from gateway.policy.examine import Examined
from gateway.policy.loading import build, load
from gateway.policy.trials import Trial, failed, failures, run, test

__all__ = [
    "POLICY_ERROR",
    "Decider",
    "EmbeddedEngine",
    "Examined",
    "Explanation",
    "PolicyEngine",
    "Trial",
    "build",
    "document",
    "failed",
    "failures",
    "json_schema",
    "load",
    "run",
    "test",
]
