"""Several drivers as one: each envelope goes through the connection it names, sealed where its channel says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

from smartlink.broadcasting.drivers.base import Driver
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.errors import BroadcastConfigError, BroadcastFailed, BroadcastRefused
from smartlink.protocol.names import ChannelKind, kind_of

__all__ = ["ConnectionRegistry"]


class ConnectionRegistry:
    """A driver over others. `find` gives one by its name, and raises BroadcastConfigError for one it does not know;
    `seal` encrypts a payload for a channel.

    Order is kept on each connection. When one fails the others have had theirs nevertheless, and the failure is
    raised: a repeat with the same idempotency key is a repeat for those that took it.
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
        """Every connection is `driver`, and nothing is sealed: for fakes."""
        return cls(driver, lambda _: driver, lambda _, payload: payload)

    @contextmanager
    def replaced_by(self, driver: Driver) -> Iterator[None]:
        """Be all through `driver` within the block, also for whoever holds this already; the default keeps its name."""
        before = self._default, self._find, self._seal
        self._default, self._find, self._seal = driver, lambda _: driver, lambda _, payload: payload
        try:
            yield
        finally:
            self._default, self._find, self._seal = before

    @property
    def name(self) -> str:
        """The default connection's."""
        return self._name

    @property
    def can_seal(self) -> bool:
        """Whether there is a key for encrypted channels."""
        return self._seal is not None

    def driver(self, connection: str | None) -> Driver:
        """The driver of a connection; the default one for None and its own name. Raises BroadcastConfigError."""
        if connection is None or connection == self._name:
            return self._default
        if self._find is None:
            raise BroadcastConfigError(
                f"there is no connection {connection!r}: this broadcaster has {self._name} alone; "
                "give it find_driver, or build it with Broadcaster.from_settings"
            )
        return self._find(connection)

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Hand the envelopes to their drivers. Raises BroadcastUnavailable or BroadcastRefused."""
        by_driver: dict[str | None, list[Envelope]] = {}
        for envelope in envelopes:
            # One that names the default connection goes the same way as one that names none, in one order with it.
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
            # One that may yet succeed weighs more than one that never will.
            failures.sort(key=lambda failure: isinstance(failure, BroadcastRefused))
            for other in failures[1:]:
                failures[0].add_note(str(other))
            raise failures[0]

    async def aclose(self) -> None:
        """Close the default driver; the others are closed by whoever finds them."""
        await self._default.aclose()

    def _driver_of(self, connection: str | None) -> Driver:
        try:
            return self.driver(connection)
        except BroadcastConfigError as error:
            # A recorded envelope may name what settings no longer do; drivers raise BroadcastFailed only.
            raise BroadcastRefused(str(error)) from None

    def _sealed(self, envelope: Envelope) -> Envelope:
        if kind_of(envelope.channel) is not ChannelKind.ENCRYPTED:
            return envelope
        if self._seal is None:
            raise BroadcastRefused(
                f"{envelope.channel}: there is no key to encrypt with, and nothing is sent in the clear; set "
                "BROADCAST_ENCRYPTION_MASTER_KEY"
            )
        return replace(envelope, payload=self._seal(envelope.channel, envelope.payload))
