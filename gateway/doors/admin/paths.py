"""Where the administration is served; each room's router has the whole path, so that its routes are built once."""

from __future__ import annotations

API = "/api/v1"
FOR_AGENTS = f"{API}/actions/"
"""Below it agents ask with their keys; everything else below API is for people."""
SIGN_IN_BY_KEY = f"{API}/sign-in/key"
