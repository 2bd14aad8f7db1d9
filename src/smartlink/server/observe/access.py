"""Who may use the operator API: by token, or without one on this machine only."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import structlog

from smartlink.safety import is_loopback
from smartlink.server.observe.webhook_desk import Refused
from smartlink.throttle import Throttle

__all__ = ["Access", "Operator", "Request"]

log = structlog.get_logger(__name__)
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the operators' port. Header names are in lower case; `address` is empty on the Unix socket."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    address: str


@dataclass(frozen=True, slots=True)
class Operator:
    """Who asks. An operator of one application sees and does nothing else."""

    name: str
    app_id: str | None = None


class Access:
    """Decides by token. Without a configured one, it admits local requests that no page of another site made."""

    def __init__(self, host: str, token: str | None, app_tokens: Mapping[str, str]) -> None:
        """`host` is where the port listens; `app_tokens` are tokens by app id."""
        self._is_local = is_loopback(host)
        self._token = token
        self._app_tokens = dict(app_tokens)
        self._warnings = Throttle()

    def check(self, request: Request) -> Operator:
        """Return who asks. Raises Refused 401 or 403."""
        if not request.address:
            return Operator("this server's user")
        self._check_origin(request)
        given = self._given(request)
        if self._token is None and not self._app_tokens:
            return self._without_token(request)
        if given is None:
            raise Refused(401, "Send the operators' token: Authorization: Bearer …")
        found: Operator | None = None
        # Compare all of them, so that the time taken does not tell which one is near.
        if self._token is not None and _is_same(given, self._token):
            found = Operator("operator")
        for app_id, token in self._app_tokens.items():
            if _is_same(given, token):
                found = found or Operator(f"operator of app {app_id}", app_id)
        if found is None:
            if self._warnings.allows():
                log.warning("operator token refused", address=request.address)
            raise Refused(401, "This token is not valid")
        return found

    @staticmethod
    def _given(request: Request) -> str | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        return token.strip() if kind.lower() == "bearer" and token.strip() else None

    def _without_token(self, request: Request) -> Operator:
        host = _host(request.headers.get("host", ""))
        if not self._is_local or any(name in request.headers for name in _FORWARDED):
            raise Refused(403, "Set REVERB_OPERATOR_TOKEN to use this from other machines or through a proxy")
        if host is None or not is_loopback(host):
            # A page may point its own name at this machine.
            raise Refused(403, "Without a token, open this as localhost or 127.0.0.1")
        return Operator("local")

    @staticmethod
    def _check_origin(request: Request) -> None:
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        host = request.headers.get("host", "")
        if site not in (None, "same-origin", "none") or (origin is not None and urlsplit(origin).netloc != host):
            raise Refused(403, "Pages of other origins may not use this")


def _is_same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _host(header: str) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None
