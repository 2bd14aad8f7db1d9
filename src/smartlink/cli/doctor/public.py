"""Checks the public address as browsers use it: pages, WebSocket, sessions, HTTP fallback, certificate, clock."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx2

from smartlink.broadcasting import BroadcastSettings
from smartlink.cli.doctor.clock import compare_date
from smartlink.cli.doctor.finding import Finding, failed, fine, skipped, warning
from smartlink.cli.doctor.realtime import NotPublished, Refused, next_message, origin_of, path_of, publish_and_receive
from smartlink.cli.doctor.socket import NoUpgrade, Socket
from smartlink.portal.shared.settings import PortalSettings
from smartlink.protocol.addresses import netloc
from smartlink.server.core.health import CERTIFICATE_S
from smartlink.server.settings.config import ServerSettings

__all__ = ["check_public"]

TIMEOUT_S = 10.0
STREAM_S = 10.0
"""How long each line of the fallback's stream may take."""
_INNER = ("/webhooks/realtime", "/apps/0/channels", "/metrics")
_UPGRADE_FIX = (
    "make the proxy speak HTTP/1.1 to the server and forward `Upgrade` and `Connection`: see deploy/proxy/nginx.conf"
)
_PATHS_FIX = "make the proxy pass ^(/s/[^/]+)?/(pusher/)?app/ to the realtime server: see deploy/proxy"
_BUFFER_FIX = (
    "turn off buffering below /app/ (nginx: proxy_buffering off; lighttpd: server.stream-response-body = 2; Apache: "
    "flushpackets=on; Caddy: flush_interval -1): see docs/howto/proxies.md"
)
# X509_V_ERR_… of OpenSSL.
_CERTIFICATE_FIX = {
    10: "renew the proxy's certificate",
    18: "use a certificate of an authority that browsers know",
    20: "make the proxy send the whole chain (fullchain.pem), of an authority that browsers know",
    21: "make the proxy send the whole chain (fullchain.pem), of an authority that browsers know",
    62: "use a certificate with this host name",
    64: "use a certificate with this IP address",
}
_IDLE = {
    "nginx": "nginx's default is 60 s: proxy_read_timeout 120s",
    "lighttpd": "lighttpd's default is 60 s without data from the client: server.max-read-idle = 120",
    "varnish": "Varnish's default is 60 s: -p pipe_timeout=120",
    "apache": "Apache's default is 300 s: raise ProxyTimeout",
    "caddy": "Caddy has no limit of its own: look at what is before it",
}
"""What docs/howto/proxies.md says, by what `Server` and `Via` call the proxy."""
_IDLE_ELSE = "raise the proxy's idle timeout (HAProxy's default is 50 s in Debian: timeout tunnel 2m)"


async def check_public(
    settings: PortalSettings, own: BroadcastSettings, server: ServerSettings, *, has_pages: bool, is_slow: bool
) -> list[Finding]:
    """Check that browsers reach the realtime server; with pages also those, and that internal paths are closed.

    Without pages, only the application's key and the public address of `settings` are used. Events are published with
    `own`. If `is_slow`, waits in silence for the server's ping, which takes REVERB_APP_PING_INTERVAL.
    """
    if has_pages and settings.app_url is None:
        return [skipped("proxy", "not used: APP_URL is not set")]
    if not has_pages and settings.reverb_public_host is None:
        return [skipped("proxy", "not used: REVERB_PUBLIC_HOST is not set")]
    place = _Place(settings)
    url = (settings.app_url or "").rstrip("/") if has_pages else place.base
    try:
        async with httpx2.AsyncClient(
            timeout=TIMEOUT_S, trust_env=False, verify=ssl.create_default_context()
        ) as client:
            asked_at = time.time()
            answer = await client.get(f"{url}/api/realtime" if has_pages else f"{url}/up")
            found = [compare_date(url, answer.headers.get("date"), asked_at)]
            if has_pages:
                found = [_pages(settings, url, answer), *found, *await _inner(client, url)]
    except httpx2.HTTPError as error:
        said = f"{url} cannot be reached ({_reason(error)})"
        address = "APP_URL" if has_pages else "REVERB_PUBLIC_HOST, REVERB_PUBLIC_PORT, REVERB_PUBLIC_SCHEME"
        fix = _certificate_fix(error) or f"start the proxy; check {address}, its DNS name and its certificate"
        return [failed("proxy", said, fix)]
    found += await _upgrade(place, own)
    if own.driver != "reverb":
        return found
    found += [await _sessions(place), await _fallback(place)]
    names = f"{answer.headers.get('server', '')} {answer.headers.get('via', '')}".lower()
    found.append(await _idle(place, names, server.reverb_app_ping_interval, is_slow=is_slow))
    return found


class _Place:
    """Where clients find the realtime server."""

    def __init__(self, settings: PortalSettings) -> None:
        told = settings.realtime
        self.host, self.port, self.key = str(told["host"]), int(str(told["port"])), str(told["key"])
        self.is_tls = told["scheme"] == "https"
        self.origin = origin_of(settings.app_url)
        self.netloc = netloc(self.host, self.port)
        self.shown = f"{'wss' if self.is_tls else 'ws'}://{self.netloc}"
        self.base = f"{'https' if self.is_tls else 'http'}://{self.netloc}"

    def socket(self, before: str = "") -> Socket:
        """Return a WebSocket; `before` is put before its path."""
        path = before + path_of(self.key)
        return Socket(self.host.strip("[]"), self.port, path, is_tls=self.is_tls, origin=self.origin)


def _pages(settings: PortalSettings, url: str, answer: httpx2.Response) -> Finding:
    try:
        key = answer.json()["key"]
    except (ValueError, KeyError, TypeError):
        said = f"{url}/api/realtime is not answered by SmartLink ({answer.status_code})"
        return failed("proxy", said, "smartlink app start; make the proxy forward all else to APP_HOST:APP_PORT")
    if key != settings.broadcast.reverb_app_key:
        return failed("proxy", f"{url} serves a different application key", "give all services the same REVERB_APP_KEY")
    return fine("proxy", f"{url} serves the pages")


async def _inner(client: httpx2.AsyncClient, url: str) -> list[Finding]:
    reachable = [path for path in _INNER if (await client.get(url + path)).status_code != 404]
    if not reachable:
        return []
    said = f"{', '.join(reachable)} can be reached from outside"
    return [warning("proxy", said, "make the proxy answer 404 there: see deploy/proxy/nginx.conf")]


async def _upgrade(place: _Place, own: BroadcastSettings) -> list[Finding]:
    """Connect as a client; for our own server also publish, and measure until the event arrives."""
    where, arrived = place.shown, ""
    certificate: list[Finding] = []
    publishes = own.driver == "reverb" and own.reverb_app_key == place.key
    try:
        async with asyncio.timeout(TIMEOUT_S), place.socket() as client:
            certificate = _certificate(place, client)
            if publishes:
                arrived = f"; an event arrived after {await publish_and_receive(own, client):.1f} ms"
            else:
                await next_message(client, "pusher:connection_established")
    except NotPublished as error:
        return [failed("upgrade", f"{where}: {error}", error.fix), *certificate]
    except Refused as refused:
        return [failed("upgrade", f"{where} refused the connection: {refused}", refused.fix)]
    except NoUpgrade as error:
        return [failed("upgrade", f"{where}: {error} instead of 101", _UPGRADE_FIX)]
    except (ssl.SSLError, OSError, EOFError, TimeoutError, ValueError) as error:
        fix = "check REVERB_PUBLIC_HOST, REVERB_PUBLIC_PORT, REVERB_PUBLIC_SCHEME and the certificate"
        return [failed("upgrade", f"{where} cannot be used ({_reason(error)})", _certificate_fix(error) or fix)]
    return [fine("upgrade", f"{where} lets WebSockets through{arrived}"), *certificate]


def _certificate(place: _Place, client: Socket) -> list[Finding]:
    """Report how long a certificate that was accepted lasts."""
    if (ends_at := client.certificate_ends_at) is None:
        return []
    left_s = ends_at - time.time()
    said = f"{place.netloc}: trusted, ends in {int(left_s / 86_400)} days"
    if left_s > CERTIFICATE_S:
        return [fine("public certificate", said)]
    return [warning("public certificate", said, "renew it, and reload the proxy")]


async def _sessions(place: _Place) -> Finding:
    """Check that sockets of a named session pass: /s/{token}/app/."""
    said = f"{place.shown}/s/…/app/"
    try:
        async with asyncio.timeout(TIMEOUT_S), place.socket(f"/s/{secrets.token_urlsafe(24)}") as client:
            await next_message(client, "pusher:connection_established")
    except Refused as refused:
        return failed("sessions", f"{said} refused the connection: {refused}", refused.fix)
    except NoUpgrade as error:
        return failed("sessions", f"{said}: {error} instead of 101; clients that resume cannot connect", _PATHS_FIX)
    except (OSError, EOFError, TimeoutError, ValueError) as error:
        return failed("sessions", f"{said} cannot be used ({_reason(error)})", _PATHS_FIX)
    return fine("sessions", f"{said} reaches the realtime server")


async def _fallback(place: _Place) -> Finding:
    """Open a stream as a client without WebSockets does, subscribe, and check that each line arrives at once."""
    base = f"{place.base}/app/{quote(place.key, safe='')}"
    session = f"{base}/{secrets.randbelow(1_000)}/{secrets.token_hex(4)}"
    headers = {} if place.origin is None else {"Origin": place.origin}
    query = path_of(place.key).partition("?")[2]
    subscribe = json.dumps({"event": "pusher:subscribe", "data": {"channel": f"doctor-{secrets.token_hex(8)}"}})
    context = ssl.create_default_context()
    opened = f"{place.netloc}: the stream of clients without WebSockets"
    try:
        async with httpx2.AsyncClient(timeout=STREAM_S, trust_env=False, verify=context, headers=headers) as client:
            started = time.monotonic()
            async with client.stream("POST", f"{session}/xhr_streaming?{query}") as stream:
                if stream.status_code != 200:
                    said = f"{opened} is answered with {stream.status_code}"
                    return warning("fallback", said, _PATHS_FIX)
                lines = stream.aiter_lines()
                await _line_with(lines, "pusher:connection_established")
                sent = await client.post(f"{session}/xhr_send", content=json.dumps([subscribe]))
                if sent.status_code != 204:
                    said = f"{place.netloc}: a message over HTTP is answered with {sent.status_code}"
                    return warning("fallback", said, _PATHS_FIX)
                await _line_with(lines, "subscription_succeeded")
    except (httpx2.TimeoutException, TimeoutError):
        said = f"{opened} is held back: nothing arrived within {STREAM_S:.0f} s, clients poll instead"
        return warning("fallback", said, _BUFFER_FIX)
    except (httpx2.HTTPError, EOFError) as error:
        return warning("fallback", f"{opened} broke off ({_reason(error)})", _BUFFER_FIX)
    took_ms = (time.monotonic() - started) * 1_000
    return fine("fallback", f"{opened} is not buffered; two lines arrived within {took_ms:.0f} ms")


async def _line_with(lines: AsyncIterator[str], text: str) -> None:
    """Read until a line has `text`. Raises TimeoutError after STREAM_S, EOFError when the stream ends."""
    async with asyncio.timeout(STREAM_S):
        async for line in lines:
            if text in line:
                return
    raise EOFError


async def _idle(place: _Place, names: str, interval_s: int, *, is_slow: bool) -> Finding:
    """Stay silent until the server's ping, and report a proxy that closes before it."""
    if not is_slow:
        return skipped("idle", f"checked with --slow only: it takes {interval_s} s")
    started = time.monotonic()
    try:
        async with asyncio.timeout(interval_s + 2 * TIMEOUT_S), place.socket() as client:
            await next_message(client, "pusher:connection_established")
            started = time.monotonic()
            await next_message(client, "pusher:ping")
    except (Refused, NoUpgrade):
        return skipped("idle", "not checkable until WebSockets pass")
    except TimeoutError:
        said = f"{place.shown} carried no ping within {interval_s + 2 * TIMEOUT_S:.0f} s"
        return warning("idle", said, "give the server and this command the same REVERB_APP_PING_INTERVAL")
    except (OSError, EOFError, ValueError):
        silent_s = time.monotonic() - started
        said = f"{place.shown} closed after {silent_s:.0f} s of silence, before the server's ping at {interval_s} s"
        advice = next((told for name, told in _IDLE.items() if name in names), _IDLE_ELSE)
        return warning("idle", said, f"{advice}; or lower REVERB_APP_PING_INTERVAL")
    return fine("idle", f"{place.shown} stayed open until the server's ping")


def _causes(error: BaseException) -> list[BaseException]:
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes


def _reason(error: BaseException) -> str:
    """Name the failure: the kind of error, or why the certificate is not trusted."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
    return type(error).__name__


def _certificate_fix(error: BaseException) -> str | None:
    """Return what to do about the certificate, None if it is not the reason."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _CERTIFICATE_FIX.get(cause.verify_code)
    return None
