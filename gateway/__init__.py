"""Agent Governance Gateway: one governed, provable path between AI agents and both models and tools."""

__version__ = "0.1.0"
