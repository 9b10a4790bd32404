"""Doors: where protocols end. Each parses its protocol into an `Action`, hands it to the governor and renders the
result, or the refusal, in the caller's own dialect.

A door never decides, never records and never talks to an upstream. It fails closed: what it can't read is refused.
"""
