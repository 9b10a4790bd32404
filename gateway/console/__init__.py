"""What people see: server-rendered pages over the same parts as the API. No script is needed, none is sent.

Owns pages, their style, sign-in and sign-out in a browser. Never decides, never changes anything but a session,
never shows data that is not real, and never loads anything from elsewhere. Everything an agent can choose is
escaped. Fails closed: without a session there is only the page that says how to get one, and the trail is shown
only when the look at it could be recorded.
"""

from gateway.console.app import console_app

__all__ = ["console_app"]
