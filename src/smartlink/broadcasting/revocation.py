"""Revoking: a user loses a channel or all of them, or everyone loses a channel, at once and without being disconnected.

await broadcasting.revoke(user, PrivateChannel("orders.7"), reason="The order was cancelled")
await broadcasting.revoke(PrivateChannel("orders.7"), everyone=True)
await broadcasting.revoke(user)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from smartlink.broadcasting.channels import Channel, channel_of
from smartlink.broadcasting.drivers.base import Driver
from smartlink.broadcasting.errors import BroadcastConfigError, InvalidChannel
from smartlink.protocol.names import MAX_USER_ID_LENGTH, is_valid_user_id

__all__ = ["Revocation", "RevokingDriver", "revocation", "revoke_through", "unsupported"]

MAX_REASON_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Revocation:
    """Who loses what: without `user_id` everyone, without `channel` (a full name) all private and presence channels.

    `reason` is shown to the clients that lose it.
    """

    channel: str | None = None
    user_id: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        who = "everyone" if self.user_id is None else f"user {self.user_id}"
        return f"{who} from {self.channel or 'all channels'}"


class RevokingDriver(Driver, Protocol):
    """A driver whose service can end subscriptions. Drivers of your own may have the method too."""

    async def revoke(self, revocation: Revocation) -> None:
        """End the subscriptions, and void the signatures made for them. May be repeated.

        Raises BroadcastUnavailable or BroadcastRefused.
        """


async def revoke_through(driver: Driver, revoked: Revocation) -> None:
    """Revoke through a driver. Raises BroadcastFailed, and BroadcastConfigError if the driver does not support it."""
    revoke = getattr(driver, "revoke", None)
    if revoke is None:
        raise unsupported(driver.name)
    await revoke(revoked)


def unsupported(driver: str) -> BroadcastConfigError:
    """Return the error for a driver whose service keeps subscriptions until clients leave."""
    return BroadcastConfigError(
        f"the driver {driver} does not support revoking: only a SmartLink server ends subscriptions; use the driver "
        'reverb, or name its connection: via="reverb"'
    )


def revocation(
    subject: object, channel: Channel | str | None, *, everyone: bool, reason: str | None = None
) -> Revocation:
    """Return the record of a call: `subject` is a user's id, or with `everyone` the channel.

    Raises InvalidChannel for a malformed or public channel; TypeError for arguments that do not fit together;
    ValueError for a malformed id or reason.
    """
    if everyone:
        if channel is not None or not isinstance(subject, Channel | str):
            raise TypeError(
                f"everyone=True takes the channel, and no user: revoke(channel, everyone=True), {subject!r:.60}"
            )
        return Revocation(_wire_name(subject), None, _checked_reason(reason))
    if isinstance(subject, Channel):
        raise TypeError(
            f"revoke(user, channel) takes the user first; for all users: revoke({subject!r}, everyone=True)"
        )
    if isinstance(subject, bool) or not isinstance(subject, str | int):
        raise TypeError(f"revoke takes a user's id, a string or a number, not {subject!r:.60}")
    if not is_valid_user_id(str(subject)):
        raise ValueError(
            f"not a user id: {subject!r:.60}; it has 1 to {MAX_USER_ID_LENGTH} characters, none of control"
        )
    return Revocation(None if channel is None else _wire_name(channel), str(subject), _checked_reason(reason))


def _wire_name(channel: Channel | str) -> str:
    given: object = channel
    if not isinstance(given, Channel | str):
        raise InvalidChannel(f"{given!r:.60} is not a channel; use PrivateChannel or PresenceChannel")
    of = channel_of(channel) if isinstance(channel, str) else channel
    if of.placeholders:
        raise InvalidChannel(f"{of!r} has placeholders; name one channel")
    if not of.kind.needs_authorization:
        raise InvalidChannel(f"{of!r} is public: anyone may subscribe, so there is nothing to revoke")
    return str(of)


def _checked_reason(reason: str | None) -> str | None:
    given: object = reason
    if given is not None and not (isinstance(given, str) and 0 < len(given) <= MAX_REASON_LENGTH):
        raise ValueError(f"a reason is a text of 1 to {MAX_REASON_LENGTH} characters, not {reason!r:.60}")
    return reason
