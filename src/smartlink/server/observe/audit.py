"""The audit log: what operators did. Every action is logged; the last few are kept to be shown."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

import msgspec
import structlog

__all__ = ["Action", "Audit"]

KEPT: Final = 500
log = structlog.get_logger(__name__)


class Action(msgspec.Struct):
    """One action. `at` is in seconds since 1970."""

    at: float
    operator: str
    address: str
    action: str
    app_id: str
    target: str
    outcome: str


class Audit:
    """The actions of this machine's operators, newest last."""

    def __init__(self) -> None:
        self._actions: deque[Action] = deque(maxlen=KEPT)

    def note(self, operator: str, address: str, action: str, app_id: str, target: str, outcome: str) -> None:
        """Log and keep an action."""
        self._actions.append(Action(round(time.time(), 3), operator, address, action, app_id, target[:200], outcome))
        log.info(
            "operator action",
            operator=operator, address=address, action=action, app=app_id, target=target[:200], outcome=outcome,
        )  # fmt: skip

    def actions(self, app_id: str | None) -> list[Action]:
        """Return the actions, newest first; those on one application if given."""
        return [each for each in reversed(self._actions) if app_id is None or each.app_id == app_id]
