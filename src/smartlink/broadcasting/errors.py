"""What can go wrong in the library, grouped by who must act.

BroadcastError
├── InvalidChannel            the caller: a channel name that is malformed or carries its prefix already
├── InvalidEventName          the caller: an event name that is malformed or reserved to the server
├── UnserialisablePayload     the caller: a payload that has no exact form in JSON
├── PayloadTooLarge           the caller: more bytes than the server takes
├── BroadcastConfigError      the operator: a setting that is missing or wrong
└── BroadcastFailed           the only one that drivers raise
    ├── BroadcastUnavailable  the service: away, overloaded, or refusing our keys; keep the event and try again
    └── BroadcastRefused      the event: the service will never take it; set it aside
"""

from __future__ import annotations

__all__ = [
    "BroadcastConfigError",
    "BroadcastError",
    "BroadcastFailed",
    "BroadcastRefused",
    "BroadcastUnavailable",
    "InvalidChannel",
    "InvalidEventName",
    "PayloadTooLarge",
    "UnserialisablePayload",
]


class BroadcastError(Exception):
    """The root of everything this library raises on purpose."""


class InvalidChannel(BroadcastError, ValueError):
    """A channel name that no client could subscribe to, or that would not mean what it says."""


class InvalidEventName(BroadcastError, ValueError):
    """An event name that is empty, too long, has control characters, or belongs to the server."""


class UnserialisablePayload(BroadcastError, TypeError):
    """A payload with a value that has no exact form in JSON; the message names where it stands."""


class PayloadTooLarge(BroadcastError, ValueError):
    """A payload of more bytes of UTF-8 than the service takes."""

    def __init__(self, event: str, payload_bytes: int, max_bytes: int) -> None:
        super().__init__(
            f"the payload of {event} takes {payload_bytes} bytes, the limit is {max_bytes}; "
            "send an id and let clients load the rest"
        )
        self.payload_bytes = payload_bytes
        self.max_bytes = max_bytes


class BroadcastConfigError(BroadcastError):
    """A setting that is missing or wrong; the message says which, and what to write."""


class BroadcastFailed(BroadcastError):
    """The service did not take the envelopes. Raised only as one of the two kinds below."""


class BroadcastUnavailable(BroadcastFailed):
    """The service cannot take anything now: no connection, a timeout, 5xx, 429, or it refuses our keys.

    Keep the envelopes, in order, and send them again. `answered` means that the service was reached and gave no
    verdict: a 5xx, silence, a cut connection, a proxy's page. If that goes on while it takes others, one of the
    envelopes is the reason.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class BroadcastRefused(BroadcastFailed):
    """The service says that what was sent is wrong (400, 413, 422); sending it again cannot help.

    Of several envelopes sent together at least one is at fault; sent one by one, the culprit shows.
    """
