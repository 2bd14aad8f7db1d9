"""Which ports workers may call, and how calls are encoded: by the types in the methods' own signatures.

A method added to a port can be called without a change here, as long as msgspec can encode its types. Workers and
parent may be of different releases during a restart: raise `messages.VERSION` with every change of a signature in use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol, get_type_hints

import msgspec

from smartlink.server.cluster.brokers.base import Broker
from smartlink.server.cluster.history.base import History
from smartlink.server.cluster.idempotency.base import CallUnderWay, IdempotencyStore
from smartlink.server.cluster.presence.base import PresenceStore
from smartlink.server.cluster.sessions.base import SessionStore
from smartlink.server.runtime.rates import MachineOverview
from smartlink.server.webhooks.base import OutgoingEvent

__all__ = ["ERRORS", "PORTS", "Signature", "UnknownCall", "WebhookRelay", "signature", "signature_of"]


class WebhookRelay(Protocol):
    """Takes webhook events for delivery by the parent; applications are named by their id."""

    def emit(self, app_id: str, event: OutgoingEvent) -> None:
        """Take one event; never waits, never raises."""


_STORES: Final = (History, IdempotencyStore, PresenceStore, SessionStore)
PORTS: Final[dict[str, type]] = {port.__name__: port for port in (Broker, MachineOverview, WebhookRelay, *_STORES)}
ERRORS: Final[dict[str, type[Exception]]] = {error.__name__: error for error in (CallUnderWay,)}
"""Errors that methods of ports declare, and that reach the worker as they were raised."""


class UnknownCall(Exception):
    """No port has this method, or its arguments cannot be sent."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One method of one port."""

    port: str
    method: str
    function: Callable[..., Any]
    """As the port declares it."""
    decode_arguments: Callable[[msgspec.Raw], tuple[Any, ...]]
    decode_result: Callable[[msgspec.Raw], Any]


@cache
def signature(port: str, method: str) -> Signature:
    """Read the signature of a port's method. Raises UnknownCall."""
    function = vars(PORTS[port]).get(method) if port in PORTS else None
    if not inspect.isfunction(function) or method.startswith("_"):
        raise UnknownCall(f"{port}.{method}")
    hints = get_type_hints(function)
    arguments = tuple(hints[name] for name in list(inspect.signature(function).parameters)[1:])
    try:
        decode_arguments = msgspec.msgpack.Decoder(tuple.__class_getitem__(arguments)).decode
        decode_result = msgspec.msgpack.Decoder(hints["return"]).decode
    except TypeError as error:  # such as a callback
        raise UnknownCall(f"{port}.{method}: {error}") from error
    return Signature(port, method, function, decode_arguments, decode_result)


@cache
def signature_of(method: Callable[..., Any]) -> Signature:
    """Read the signature of a method given as a port's own, such as `History.append`. Raises UnknownCall."""
    port, _, name = method.__qualname__.rpartition(".")
    return signature(port, name)
