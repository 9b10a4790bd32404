"""The door for people and for agents' questions about themselves: `/api/v1`, the console, probes.

FastAPI serves everything that is not hot. Owns authentication of people on the way in, roles, problem details
(RFC 9457), the OpenAPI document. Never changes anything that is not recorded with the person who did it, and
never shows a secret but the one just made. Fails closed: nobody is anybody until proved, and a read of the trail
that can't be recorded is not answered.
"""

from gateway.doors.admin.app import admin_app

__all__ = ["admin_app"]
