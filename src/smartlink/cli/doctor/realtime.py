"""Checks the realtime server end to end at the address of publishers; `public` does it through the proxy."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import time
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from smartlink.broadcasting import BroadcastSettings
from smartlink.cli.doctor.finding import Finding, failed, fine, skipped, warning
from smartlink.cli.doctor.socket import NoUpgrade, Socket
from smartlink.cli.reach import port_to_write
from smartlink.protocol.addresses import netloc
from smartlink.protocol.signing import signed_query
from smartlink.server.settings.config import ServerSettings

__all__ = [
    "NotPublished",
    "Refused",
    "check_open_descriptors",
    "check_realtime",
    "next_message",
    "origin_of",
    "path_of",
    "publish_and_receive",
]

TIMEOUT_S = 10.0
_MOST_OPEN = 0.8
"""The share of descriptors from which alerts fire too."""
_REFUSED_FIX = {
    "4001": "set REVERB_APP_KEY to the server's",
    "4003": "enable the application in its file or table",
    "4009": "add APP_URL to REVERB_APP_ALLOWED_ORIGINS",
    "4100": "smartlink reverb status; raise REVERB_APP_MAX_CONNECTIONS",
}


class Refused(Exception):
    """The server refused the connection and said why."""

    def __init__(self, data: object) -> None:
        told = json.loads(data) if isinstance(data, str) else data
        code, message = (told.get("code"), told.get("message")) if isinstance(told, dict) else (None, None)
        super().__init__(f"{code} {message}")
        self.fix = _REFUSED_FIX.get(str(code), "smartlink reverb status")


class NotPublished(Exception):
    """The event could not be published. `fix` is what to do about it."""

    def __init__(self, said: str, fix: str) -> None:
        super().__init__(said)
        self.fix = fix


async def check_realtime(own: BroadcastSettings, app_url: str | None, server: ServerSettings) -> Finding:
    """Connect and subscribe as a client, publish a signed event, and check that it arrives."""
    if own.driver != "reverb":
        return skipped("realtime", f"not used: events go through the {own.driver} driver")
    where = netloc(own.reverb_host, own.reverb_port)
    is_tls = own.reverb_scheme == "https"
    path = path_of(own.reverb_app_key)
    socket = Socket(own.reverb_host.strip("[]"), own.reverb_port, path, is_tls=is_tls, origin=origin_of(app_url))
    try:
        async with asyncio.timeout(TIMEOUT_S), socket as client:
            took_ms = await publish_and_receive(own, client)
    except NotPublished as error:
        return failed("realtime", str(error), error.fix)
    except Refused as refused:
        return failed("realtime", f"{where} refused the connection: {refused}", refused.fix)
    except NoUpgrade as error:
        fix = "check REVERB_HOST, REVERB_PORT, REVERB_SCHEME"
        return failed("realtime", f"{where} does not accept WebSockets: {error}", fix)
    except (ssl.SSLError, OSError, EOFError, TimeoutError, ValueError) as error:
        elsewhere = await asyncio.to_thread(port_to_write, own, server)
        fix = elsewhere or "smartlink reverb start; check REVERB_HOST, REVERB_PORT, REVERB_SCHEME"
        return failed("realtime", f"{where} cannot be used ({type(error).__name__})", fix)
    return fine("realtime", f"{where}: an event arrived after {took_ms:.1f} ms")


async def check_open_descriptors(own: BroadcastSettings) -> Finding:
    """Ask the running server how many descriptors are open in the worker with the fewest left, and report 80 %."""
    where = netloc(own.reverb_host, own.reverb_port)
    if own.driver != "reverb":
        return skipped("open descriptors", f"not used: events go through the {own.driver} driver")
    try:
        async with httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=False, verify=ssl.create_default_context()) as http:
            answer = await http.get(_signed(own, "GET", "status", b""))
            told = answer.raise_for_status().json()["descriptors"]
        used, limit = int(told["open"]), int(told["limit"])
    except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
        return skipped("open descriptors", f"the server at {where} does not say ({type(error).__name__})")
    said = f"{used} of {limit} are open in the fullest worker of {where}"
    if used < _MOST_OPEN * limit:
        return fine("open descriptors", said)
    fix = "raise LimitNOFILE in the systemd unit or ulimits in compose, or add a node: see docs/howto/runbook.md"
    return warning("open descriptors", said, fix)


async def publish_and_receive(own: BroadcastSettings, client: Socket) -> float:
    """Subscribe with `client`, publish to the address of publishers, wait for the event.

    Returns the milliseconds from publishing to receiving. Raises NotPublished, and what `next_message` raises.
    """
    await next_message(client, "pusher:connection_established")
    channel = f"doctor-{secrets.token_hex(8)}"
    await client.send({"event": "pusher:subscribe", "data": {"channel": channel}})
    await next_message(client, "pusher_internal:subscription_succeeded")
    async with httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=False, verify=ssl.create_default_context()) as http:
        started = time.monotonic()
        await _publish(own, channel, http)
        await next_message(client, "examined")
        return (time.monotonic() - started) * 1_000


async def _publish(own: BroadcastSettings, channel: str, http: httpx2.AsyncClient) -> None:
    body = json.dumps({"name": "examined", "channel": channel, "data": "{}"}).encode()
    url = _signed(own, "POST", "events", body)
    try:
        answer = await http.post(url, content=body, headers={"Content-Type": "application/json"})
    except httpx2.HTTPError as error:
        fix = "check REVERB_HOST, REVERB_PORT, REVERB_SCHEME"
        raise NotPublished(f"publishing to {_base(own)} failed ({type(error).__name__})", fix) from None
    if answer.status_code == 200:
        return
    said = f"the server refused the event ({answer.status_code}): {answer.text[:120]}"
    if answer.status_code == 401 and "auth_timestamp" in answer.text:
        raise NotPublished(said, "run an NTP client on both machines")
    if answer.status_code in (401, 403, 404):
        raise NotPublished(said, "set REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET to the server's")
    raise NotPublished(f"publishing failed ({answer.status_code}): {answer.text[:120]}", "smartlink reverb status")


def _base(own: BroadcastSettings) -> str:
    return f"{own.reverb_scheme}://{netloc(own.reverb_host, own.reverb_port)}"


def _signed(own: BroadcastSettings, method: str, call: str, body: bytes) -> str:
    """Return the signed address of a call of the application's."""
    path = f"/apps/{quote(own.reverb_app_id, safe='')}/{call}"
    secret = own.reverb_app_secret.get_secret_value()
    query = signed_query(own.reverb_app_key, secret, method, path, body, timestamp=int(time.time()))
    return f"{_base(own)}{path}?{query}"


async def next_message(client: Socket, event: str) -> dict[str, Any]:
    """Return the next message named `event`; answers the server's pings before it.

    Raises Refused, ValueError for malformed messages, and what `Socket.receive` raises.
    """
    while True:
        message = await client.receive()
        if message.get("event") == event:
            return message
        if message.get("event") == "pusher:ping":
            await client.send({"event": "pusher:pong", "data": {}})
        if message.get("event") == "pusher:error":
            raise Refused(message.get("data"))


def path_of(key: str) -> str:
    """Return path and query of a WebSocket for the application with this key."""
    return f"/app/{quote(key, safe='')}?protocol=7&client=smartlink-doctor&version=1"


def origin_of(app_url: str | None) -> str | None:
    """Return the origin of the pages at `app_url`, None without an address."""
    parts = urlsplit(app_url or "")
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else None
