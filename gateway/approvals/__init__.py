"""Cases: actions that wait for people, their votes, and the one and only time each is carried out.

Owns the case machine (every transition a compare-and-swap, in one transaction with its record), votes, attempts,
stored endings and held answers, and who is woken when something changes.
Never decides what needs a person (policy does) and never performs anything (the path does).
Fails closed: what can't be read, stored or counted stays undone; time running out denies.
"""

from gateway.approvals.approvals import Approvals
from gateway.approvals.looking import Page
from gateway.approvals.sealing import Sealing

__all__ = ["Approvals", "Page", "Sealing"]
