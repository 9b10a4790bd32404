"""What people see: server-rendered pages over the same parts as the API. Each does all it can without a script;
the approvals pages send one, which keeps them up to date.

Owns pages, their style, sign-in and sign-out in a browser, and the forms by which people decide cases. Never decides
by itself, changes nothing that the API would not change for the same person, never shows data that is not real, and
never loads anything from elsewhere. Everything an agent can choose is escaped, and what can't be seen is made visible.
Fails closed: without a session there is only the page that says how to get one, and the trail and cases are shown only
when the look at them could be recorded.
"""

from gateway.console.app import console_app

__all__ = ["console_app"]
