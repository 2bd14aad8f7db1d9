"""Checks the realtime server end to end, as clients and publishers use it: directly, and through the proxy."""

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
from smartlink.portal.shared.settings import PortalSettings
from smartlink.protocol.addresses import netloc
from smartlink.protocol.signing import signed_query
from smartlink.server.settings.config import ServerSettings

__all__ = ["check_public", "check_realtime"]

TIMEOUT_S = 10.0
_INNER = ("/webhooks/realtime", "/apps/0/channels", "/metrics")
_UPGRADE_FIX = (
    "make the proxy speak HTTP/1.1 to the server and forward `Upgrade` and `Connection`: see deploy/proxy/nginx.conf"
)
_REFUSED_FIX = {
    "4001": "set REVERB_APP_KEY to the server's",
    "4003": "enable the application in its file or table",
    "4009": "add APP_URL to REVERB_APP_ALLOWED_ORIGINS",
    "4100": "smartlink reverb status; raise REVERB_APP_MAX_CONNECTIONS",
}


class _Refused(Exception):
    """The server refused the connection and said why."""

    def __init__(self, data: object) -> None:
        told = json.loads(data) if isinstance(data, str) else data
        code, message = (told.get("code"), told.get("message")) if isinstance(told, dict) else (None, None)
        super().__init__(f"{code} {message}")
        self.fix = _REFUSED_FIX.get(str(code), "smartlink reverb status")


async def check_realtime(own: BroadcastSettings, app_url: str | None, server: ServerSettings) -> Finding:
    """Connect and subscribe as a client, publish a signed event, and check that it arrives."""
    if own.driver != "reverb":
        return skipped("realtime", f"not used: events go through the {own.driver} driver")
    where = netloc(own.reverb_host, own.reverb_port)
    is_tls = own.reverb_scheme == "https"
    path = _path(own.reverb_app_key)
    socket = Socket(own.reverb_host.strip("[]"), own.reverb_port, path, is_tls=is_tls, origin=_origin(app_url))
    started = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT_S), socket as client:
            problem = await _publish_and_receive(own, client)
    except _Refused as refused:
        return failed("realtime", f"{where} refused the connection: {refused}", refused.fix)
    except NoUpgrade as error:
        fix = "check REVERB_HOST, REVERB_PORT, REVERB_SCHEME"
        return failed("realtime", f"{where} does not accept WebSockets: {error}", fix)
    except (ssl.SSLError, OSError, EOFError, TimeoutError, ValueError) as error:
        elsewhere = await asyncio.to_thread(port_to_write, own, server)
        fix = elsewhere or "smartlink reverb start; check REVERB_HOST, REVERB_PORT, REVERB_SCHEME"
        return failed("realtime", f"{where} cannot be used ({type(error).__name__})", fix)
    if problem is not None:
        return failed("realtime", *problem)
    return fine("realtime", f"{where}: an event arrived after {(time.monotonic() - started) * 1000:.0f} ms")


async def check_public(settings: PortalSettings) -> list[Finding]:
    """Check that browsers reach the pages and the WebSocket, and that internal paths are not reachable."""
    if settings.app_url is None:
        return [skipped("proxy", "not used: APP_URL is not set")]
    url = settings.app_url.rstrip("/")
    found = []
    try:
        async with httpx2.AsyncClient(
            timeout=TIMEOUT_S, trust_env=False, verify=ssl.create_default_context()
        ) as client:
            answer = await client.get(f"{url}/api/realtime")
            found.append(_pages(settings, url, answer))
            reachable = [path for path in _INNER if (await client.get(url + path)).status_code != 404]
    except httpx2.HTTPError as error:
        said = f"{url} cannot be reached ({_reason(error)})"
        return [failed("proxy", said, "start the proxy; check APP_URL, its DNS name and its certificate")]
    if reachable:
        said = f"{', '.join(reachable)} can be reached from outside"
        found.append(warning("proxy", said, "make the proxy answer 404 there: see deploy/proxy/nginx.conf"))
    return [*found, await _upgrade(settings)]


def _pages(settings: PortalSettings, url: str, answer: httpx2.Response) -> Finding:
    try:
        key = answer.json()["key"]
    except (ValueError, KeyError, TypeError):
        said = f"{url}/api/realtime is not answered by SmartLink ({answer.status_code})"
        return failed("proxy", said, "smartlink app start; make the proxy forward all else to APP_HOST:APP_PORT")
    if key != settings.broadcast.reverb_app_key:
        return failed("proxy", f"{url} serves a different application key", "give all services the same REVERB_APP_KEY")
    return fine("proxy", f"{url} serves the pages")


async def _upgrade(settings: PortalSettings) -> Finding:
    place = settings.realtime
    host, port, is_tls = str(place["host"]), int(str(place["port"])), place["scheme"] == "https"
    where = f"{'wss' if is_tls else 'ws'}://{netloc(host, port)}"
    path = _path(str(place["key"]))
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            Socket(host, port, path, is_tls=is_tls, origin=_origin(settings.app_url)) as client,
        ):
            await _next(client, "pusher:connection_established")
    except _Refused as refused:
        return failed("upgrade", f"{where} refused the connection: {refused}", refused.fix)
    except NoUpgrade as error:
        return failed("upgrade", f"{where}: {error} instead of 101", _UPGRADE_FIX)
    except (ssl.SSLError, OSError, EOFError, TimeoutError, ValueError) as error:
        fix = "check REVERB_PUBLIC_HOST, REVERB_PUBLIC_PORT, REVERB_PUBLIC_SCHEME and the certificate"
        return failed("upgrade", f"{where} cannot be used ({_reason(error)})", fix)
    return fine("upgrade", f"{where} lets WebSockets through")


async def _publish_and_receive(own: BroadcastSettings, client: Socket) -> tuple[str, str] | None:
    await _next(client, "pusher:connection_established")
    channel = f"doctor-{secrets.token_hex(8)}"
    await client.send({"event": "pusher:subscribe", "data": {"channel": channel}})
    await _next(client, "pusher_internal:subscription_succeeded")
    path = f"/apps/{quote(own.reverb_app_id, safe='')}/events"
    body = json.dumps({"name": "examined", "channel": channel, "data": "{}"}).encode()
    secret = own.reverb_app_secret.get_secret_value()
    query = signed_query(own.reverb_app_key, secret, "POST", path, body, timestamp=int(time.time()))
    base = f"{own.reverb_scheme}://{netloc(own.reverb_host, own.reverb_port)}"
    async with httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
        answer = await http.post(f"{base}{path}?{query}", content=body, headers={"Content-Type": "application/json"})
    if answer.status_code in (401, 403, 404):
        same = "set REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET to the server's"
        return f"the server refused the event ({answer.status_code}): {answer.text[:120]}", same
    if answer.status_code != 200:
        return f"publishing failed ({answer.status_code}): {answer.text[:120]}", "smartlink reverb status"
    await _next(client, "examined")
    return None


async def _next(client: Socket, event: str) -> dict[str, Any]:
    """Return the next message named `event`. Raises _Refused, and ValueError for malformed messages."""
    while True:
        message = await client.receive()
        if message.get("event") == event:
            return message
        if message.get("event") == "pusher:error":
            raise _Refused(message.get("data"))


def _path(key: str) -> str:
    return f"/app/{quote(key, safe='')}?protocol=7&client=smartlink-doctor&version=1"


def _origin(app_url: str | None) -> str | None:
    parts = urlsplit(app_url or "")
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else None


def _reason(error: BaseException) -> str:
    """Name the failure: the kind of error, or that the certificate is not trusted."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
