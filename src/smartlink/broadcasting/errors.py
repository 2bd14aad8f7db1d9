"""The library's exceptions.

BroadcastError
├── InvalidChannel            a channel name is malformed, or already has a prefix
├── InvalidEventName          an event name is malformed, or reserved for the server
├── UnserialisablePayload     a payload has no exact representation in JSON
├── PayloadTooLarge           a payload is larger than the service accepts
├── BroadcastConfigError      a setting is missing or wrong
└── BroadcastFailed           the only kind that drivers raise
    ├── BroadcastUnavailable  the service is down, overloaded, or rejects our keys: keep the event and retry
    └── BroadcastRefused      the service will never accept the event: do not retry
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
    """The base class of the library's exceptions."""


class InvalidChannel(BroadcastError, ValueError):
    """A channel name is malformed, or has the prefix of another kind of channel."""


class InvalidEventName(BroadcastError, ValueError):
    """An event name is empty, too long, has control characters, or is reserved for the server."""


class UnserialisablePayload(BroadcastError, TypeError):
    """A value has no exact representation in JSON; the message names its place in the payload."""


class PayloadTooLarge(BroadcastError, ValueError):
    """A payload has more bytes of UTF-8 than the service accepts."""

    def __init__(self, event: str, payload_bytes: int, max_bytes: int) -> None:
        super().__init__(
            f"the payload of {event} takes {payload_bytes} bytes, the limit is {max_bytes}; "
            "send an id and let clients load the rest"
        )
        self.payload_bytes = payload_bytes
        self.max_bytes = max_bytes


class BroadcastConfigError(BroadcastError):
    """A setting is missing or wrong; the message says which, and what to change."""


class BroadcastFailed(BroadcastError):
    """The service did not accept the envelopes. Always one of the two subclasses."""


class BroadcastUnavailable(BroadcastFailed):
    """The service cannot accept events now: no connection, a timeout, 5xx, 429, or it rejects our keys.

    Keep the envelopes, in order, and retry. `answered` means that the service was reached but gave no verdict: a 5xx,
    a timeout, a broken connection, a proxy's page. If that persists while it accepts others, one of the envelopes is
    the cause.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class BroadcastRefused(BroadcastFailed):
    """The service rejected the envelopes as invalid (400, 413, 422); retrying cannot help.

    Of several envelopes in a call, at least one is invalid; send them one by one to find out which.
    """
