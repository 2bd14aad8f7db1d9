"""What can go wrong for a client.

ClientError
├── ConnectionRefused          the server wants no connection of this client: change address, key or settings
├── SubscriptionFailed         the client may not listen to a channel, or no longer
├── AuthorizationDenied        the application does not sign a subscription or sign-in
├── AuthorizationUnavailable   the application cannot be asked now; the client tries again by itself
├── SignInFailed               the server refused a sign-in
├── NotSubscribed              something can be sent only while subscribed
├── InvalidPayload             a received event does not fit the class it was to become
└── ClientClosed               the client was closed
"""

from __future__ import annotations

__all__ = [
    "AuthorizationDenied",
    "AuthorizationUnavailable",
    "ClientClosed",
    "ClientError",
    "ConnectionRefused",
    "InvalidPayload",
    "NotSubscribed",
    "SignInFailed",
    "SubscriptionFailed",
]


class ClientError(Exception):
    """The root of this package's errors."""


class ConnectionRefused(ClientError):
    """The server refused the connection for good; the client does not come back.

    `code` is the close code (4000 to 4099, or from 4300), the HTTP status of a refused handshake, or None.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(f"{reason} ({code})" if code else reason)
        self.reason = reason
        self.code = code


class SubscriptionFailed(ClientError):
    """A subscription was refused, or ended by the server.

    `kind` is AuthError, LimitReached, InvalidChannel, Expired, Revoked, or Denied if the application did not sign it;
    `status` is in the manner of HTTP, or None.
    """

    def __init__(self, channel: str, kind: str, reason: str, status: int | None = None) -> None:
        super().__init__(f"{channel}: {reason} ({kind})")
        self.channel = channel
        self.kind = kind
        self.reason = reason
        self.status = status


class AuthorizationDenied(ClientError):
    """The application does not authorize this. `status` is that of its endpoint, if there is one."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class AuthorizationUnavailable(ClientError):
    """The application cannot be asked now; the client asks again, with growing pauses."""


class SignInFailed(ClientError):
    """The server, or the application, did not accept the sign-in."""


class NotSubscribed(ClientError):
    """The client is not subscribed to the channel at this moment, so nothing can be sent to it."""


class InvalidPayload(ClientError):
    """An event's payload does not fit the class it was to become. The stream can be read on.

    `event` is the event as it was received.
    """

    def __init__(self, reason: str, event: object) -> None:
        super().__init__(reason)
        self.event = event


class ClientClosed(ClientError):
    """The client was closed, or its process forked: a child needs a client of its own."""
