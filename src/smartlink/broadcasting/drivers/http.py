"""HTTP calls for drivers: kept connections, a limit on every wait, retries only where they are safe."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2
import msgspec

from smartlink import tracing
from smartlink.broadcasting.drivers.loops import PerLoop
from smartlink.broadcasting.errors import BroadcastUnavailable
from smartlink.protocol.addresses import netloc

__all__ = ["HttpService", "ServiceResponse"]

_random = random.Random()  # noqa: S311 - spreads repeats, keeps no secret
_MAX_ANSWER_BYTES = 64 * 1024
_QUOTED_CHARACTERS = 200
_ATTEMPTS = 2
_NOT_REACHED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_NO_VERDICT = (httpx2.ReadError, httpx2.ReadTimeout, httpx2.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """A service's response; `body` is cut off after the call's limit, by default 64 KiB."""

    called: str
    status: int
    content_type: str
    body: bytes

    @property
    def is_page(self) -> bool:
        """Whether the response is a web page, so from a proxy or a wrong server, not from the API."""
        return self.content_type.startswith("text/html")

    def json(self) -> object:
        """Return the decoded body; None if it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def __str__(self) -> str:
        quoted = repr(self.body[:_QUOTED_CHARACTERS].decode("utf-8", "replace"))
        return f"{self.called} answered {self.status}: {quoted}"


class HttpService:
    """Calls the API of one host.

    `timeout_s` limits a whole call, including connecting and retries; `connect_timeout_s` limits connecting.
    `trust_env` applies the environment's proxy variables; leave it off for a server on this host or network.
    `unix_socket` is the path of a socket to connect to instead.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        scheme: str,
        timeout_s: float,
        connect_timeout_s: float,
        trust_env: bool,
        unix_socket: str | None = None,
    ) -> None:
        self.origin = f"{scheme}://{netloc(host, port)}"
        self._timeout_s = timeout_s
        self._closed = False

        def build() -> httpx2.AsyncClient:
            limits = httpx2.Limits(max_connections=20, max_keepalive_connections=20, keepalive_expiry=30)
            return httpx2.AsyncClient(
                transport=None if unix_socket is None else httpx2.AsyncHTTPTransport(uds=unix_socket, limits=limits),
                timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, connect_timeout_s)),
                trust_env=trust_env,
                # SSL_CERT_FILE names the trusted certificates, whether proxies apply or not.
                verify=httpx2.create_ssl_context() if scheme == "https" else False,
                headers={"content-type": "application/json", "accept-encoding": "identity"},
                limits=limits,
            )

        self._clients = PerLoop(build)

    async def post(
        self, path: str, body: bytes, *, query: str = "", headers: Mapping[str, str] | None = None, repeat: bool = False
    ) -> ServiceResponse:
        """Post `body`. Raises BroadcastUnavailable if there is no response; its message never shows the query.

        Retries once if the connection failed. With `repeat`, also retries after a 5xx or no response: set it only if
        the service detects duplicates.
        """
        return await self._call("POST", path, query, body, dict(headers or {}), repeat=repeat)

    async def _call(
        self,
        method: str,
        path: str,
        query: str,
        body: bytes,
        headers: dict[str, str],
        *,
        repeat: bool,
        max_bytes: int = _MAX_ANSWER_BYTES,
    ) -> ServiceResponse:
        called = f"{self.origin}{path}"
        if self._closed:
            raise BroadcastUnavailable(f"{called}: the driver has been closed")
        url = f"{called}?{query}" if query else called
        try:
            async with asyncio.timeout(self._timeout_s):
                client = self._clients.here()
                if (trace := tracing.current()) is not None:
                    headers["traceparent"] = trace
                request = client.build_request(method, url, content=body, headers=headers)
                return await self._attempts(client, called, request, repeat=repeat, max_bytes=max_bytes)
        except TimeoutError:
            raise BroadcastUnavailable(f"{called}: no answer within {self._timeout_s:g} s", answered=True) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            reached = isinstance(error, _NO_VERDICT)
            advice = "; check host, port and scheme" if isinstance(error, httpx2.ConnectError) else ""
            said = f"{called}: {type(error).__name__}: {error}{advice}"
            raise BroadcastUnavailable(said, answered=reached) from None

    async def get(self, path: str, *, query: str = "", max_bytes: int = _MAX_ANSWER_BYTES) -> ServiceResponse:
        """Get `path`, without retries. Raises BroadcastUnavailable if there is no response."""
        return await self._call("GET", path, query, b"", {}, repeat=False, max_bytes=max_bytes)

    async def aclose(self) -> None:
        """Close the connections."""
        self._closed = True
        if (client := self._clients.leave()) is not None:
            await client.aclose()

    async def _attempts(
        self, client: httpx2.AsyncClient, called: str, request: httpx2.Request, *, repeat: bool, max_bytes: int
    ) -> ServiceResponse:
        for attempt in range(1, _ATTEMPTS + 1):
            is_last = attempt == _ATTEMPTS
            try:
                answer = await self._once(client, called, request, max_bytes)
            except _NOT_REACHED:
                if is_last:
                    raise
            except _NO_VERDICT:
                if is_last or not repeat:
                    raise
            else:
                if answer.status < 500 or is_last or not repeat:
                    return answer
            await asyncio.sleep(_random.uniform(0.02, 0.1))
        raise AssertionError("the last attempt returns or raises")

    async def _once(
        self, client: httpx2.AsyncClient, called: str, request: httpx2.Request, max_bytes: int
    ) -> ServiceResponse:
        response = await client.send(request, stream=True)
        try:
            answer = bytearray()
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > max_bytes:
                    break
            return ServiceResponse(
                called, response.status_code, response.headers.get("content-type", ""), bytes(answer)
            )
        finally:
            await response.aclose()
