"""Routes each envelope to the driver of its connection, encrypted if its channel is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

from smartlink.broadcasting.drivers.base import Driver, reports_receipts
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.errors import BroadcastConfigError, BroadcastFailed, BroadcastRefused
from smartlink.broadcasting.revocation import Revocation, revoke_through
from smartlink.protocol.names import ChannelKind, kind_of

__all__ = ["ConnectionRegistry"]


class ConnectionRegistry:
    """A driver over other drivers. `find` returns one by name, or raises BroadcastConfigError if it is unknown;
    `seal` encrypts a payload for a channel.

    Each connection keeps its order. If one fails, the others still get their envelopes, then the failure is raised;
    a repeat with the same idempotency key is a duplicate for those that accepted theirs.
    """

    def __init__(
        self,
        default: Driver,
        find: Callable[[str], Driver] | None = None,
        seal: Callable[[str, str], str] | None = None,
    ) -> None:
        self._default = default
        self._name = default.name
        self._find = find
        self._seal = seal

    @classmethod
    def all_through(cls, driver: Driver) -> Self:
        """Return a registry whose connections are all `driver`, without encryption: for fakes."""
        return cls(driver, lambda _: driver, lambda _, payload: payload)

    @contextmanager
    def replaced_by(self, driver: Driver) -> Iterator[None]:
        """Send everything through `driver` within the block, for current holders too; the default keeps its name."""
        before = self._default, self._find, self._seal
        self._default, self._find, self._seal = driver, lambda _: driver, lambda _, payload: payload
        try:
            yield
        finally:
            self._default, self._find, self._seal = before

    @property
    def name(self) -> str:
        """The default connection's name."""
        return self._name

    @property
    def reports_receipts(self) -> bool:
        """Whether the default connection's service reports which users have received an event."""
        return reports_receipts(self._default)

    @property
    def can_seal(self) -> bool:
        """Whether a key for encrypted channels is configured."""
        return self._seal is not None

    def driver(self, connection: str | None) -> Driver:
        """Return a connection's driver; the default one for None or its name. Raises BroadcastConfigError."""
        if connection is None or connection == self._name:
            return self._default
        if self._find is None:
            raise BroadcastConfigError(
                f"there is no connection {connection!r}: this broadcaster has only {self._name}; "
                "pass find_driver, or build it with Broadcaster.from_settings"
            )
        return self._find(connection)

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Hand the envelopes to their drivers. Raises BroadcastUnavailable or BroadcastRefused."""
        by_driver: dict[str | None, list[Envelope]] = {}
        for envelope in envelopes:
            # Naming the default connection is the same as naming none: both share one order.
            connection = None if envelope.connection == self._name else envelope.connection
            by_driver.setdefault(connection, []).append(self._sealed(envelope))
        failures: list[BroadcastFailed] = []
        for connection, own in by_driver.items():
            key = f"{idempotency_key}.{connection}" if idempotency_key and connection else idempotency_key
            try:
                await self._driver_of(connection).send(own, idempotency_key=key)
            except BroadcastFailed as failure:
                failures.append(failure)
        if failures:
            # A failure that may be temporary takes precedence over a permanent one.
            failures.sort(key=lambda failure: isinstance(failure, BroadcastRefused))
            for other in failures[1:]:
                failures[0].add_note(str(other))
            raise failures[0]

    async def revoke(self, revocation: Revocation, connection: str | None = None) -> None:
        """Revoke through a connection's driver. Raises BroadcastFailed; BroadcastConfigError if it is unknown, or does
        not support that."""
        await revoke_through(self.driver(connection), revocation)

    async def aclose(self) -> None:
        """Close the default driver; the provider of `find` closes the others."""
        await self._default.aclose()

    def _driver_of(self, connection: str | None) -> Driver:
        try:
            return self.driver(connection)
        except BroadcastConfigError as error:
            # A recorded envelope may name a connection since removed; drivers raise only BroadcastFailed.
            raise BroadcastRefused(str(error)) from None

    def _sealed(self, envelope: Envelope) -> Envelope:
        if kind_of(envelope.channel) is not ChannelKind.ENCRYPTED:
            return envelope
        if self._seal is None:
            raise BroadcastRefused(
                f"{envelope.channel}: no encryption key is configured, and nothing is sent unencrypted; set "
                "BROADCAST_ENCRYPTION_MASTER_KEY"
            )
        return replace(envelope, payload=self._seal(envelope.channel, envelope.payload))
