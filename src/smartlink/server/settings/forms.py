"""Validation of application values, whether from a file, a table or the environment.

Each rule returns what is wrong, as a predicate to follow the field's name, or None.
"""

from __future__ import annotations

import difflib
import re
from typing import Final

__all__ = [
    "EVENT_NAMES",
    "fault_of_allowed_origin",
    "fault_of_event",
    "fault_of_name",
    "fault_of_origin",
    "fault_of_pattern",
]

EVENT_NAMES: Final = (
    "channel_occupied",
    "channel_vacated",
    "member_added",
    "member_removed",
    "client_event",
    "cache_miss",
    "subscription_count",
    "user_online",
    "user_offline",
    "event_delivered",
)
"""Events that webhooks can report."""

_ORIGIN: Final = re.compile(r"[a-z][-+.a-z0-9]*://(?:\[[0-9a-f:.]+\]|[^][/?#:@*\s]+)(?::[0-9]{1,5})?\Z", re.IGNORECASE)
_PATTERN: Final = re.compile(r"#?[-A-Za-z0-9_=@,.;*]+\Z")
_HOST: Final = re.compile(r"(?:\*\.)?[^][/?#:@*\s]+\Z")


def fault_of_name(text: str) -> str | None:
    """Check an application's id or key."""
    if not text.isascii():
        return "must be ASCII"
    if any(sign in text for sign in "/?#%:& "):
        return "must not contain / ? # % : & or a space: it is used in URLs and signatures"
    return None


def fault_of_pattern(text: str) -> str | None:
    """Check a pattern of channel names."""
    if _PATTERN.match(text):
        return None
    return f"{text[:60]!r} is not a pattern: write a channel's name with * for text without a dot, ** for any text"


def fault_of_origin(text: str) -> str | None:
    """Check an origin whose pages may call the HTTP API."""
    if text == "*" or _ORIGIN.match(text):
        return None
    return f"{text[:60]!r} is not an origin: write scheme://host or scheme://host:port, or *"


def fault_of_allowed_origin(text: str) -> str | None:
    """Check an origin or host pattern whose pages may connect."""
    scheme, separator, host = text.partition("://*.")
    if text == "*" or _ORIGIN.match(f"{scheme}://{host}" if separator else text) or _HOST.match(text):
        return None
    return f"{text[:60]!r} is not an origin: write scheme://host, scheme://host:port, host or *.host, or *"


def fault_of_event(text: str) -> str | None:
    """Check the name of a webhook event."""
    if text in EVENT_NAMES:
        return None
    near = difflib.get_close_matches(text, EVENT_NAMES, 1)
    return f"{text[:40]!r} is not a webhook event" + (f"; did you mean {near[0]!r}?" if near else "")
