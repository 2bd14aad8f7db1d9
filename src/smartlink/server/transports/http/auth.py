"""Who may call the HTTP API: the signed query. Source: Pusher Channels, "HTTP API reference: authentication"."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from urllib.parse import quote, unquote, unquote_plus

from smartlink.protocol.signing import AUTH_VERSION, TIMESTAMP_WINDOW_S, body_md5, verify_request
from smartlink.server.apps.base import App
from smartlink.server.net.requests import HttpError, HttpRequest

__all__ = ["authenticate", "parse_query"]

MAX_PARAMETERS = 64
_PLAIN = re.compile(r"[-/0-9A-Za-z_.~]*\Z")
_AMBIGUOUS = re.compile(r"%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f]")
_SAFE = ("/", "/!*'()", "/!$&'()*+,;=:@")
"""What stays as it is in a path besides letters, digits and -._~: for some nothing, for JavaScript's
encodeURIComponent its marks, for others what RFC 3986 allows in a path."""


def parse_query(query: str) -> dict[str, str]:
    """A query's parameters, unescaped, names lower-cased. Raises HttpError 400 for one that is given twice."""
    parameters: dict[str, str] = {}
    pairs = query.split("&") if query else []
    if len(pairs) > MAX_PARAMETERS:
        raise HttpError(400, f"More than {MAX_PARAMETERS} parameters")
    for pair in pairs:
        name, _, value = pair.partition("=")
        if "%" in pair or "+" in pair:
            name, value = unquote_plus(name), unquote_plus(value)
        name = name.lower()
        if name in parameters:
            raise HttpError(400, f"The parameter {name[:40]!r} is given twice")
        parameters[name] = value
    return parameters


def authenticate(
    app: App,
    request: HttpRequest,
    parameters: dict[str, str],
    clock: Callable[[], float] = time.time,
    *,
    is_whole: bool = True,
) -> None:
    """Check that `request` was signed for `app`. Raises HttpError 401, saying which part is wrong.

    Of one that is not whole, as its body is still to come, all but the body is checked: the signature covers its MD5.
    """
    if not hmac.compare_digest(parameters.get("auth_key", "").encode("utf-8", "replace"), app.key.encode()):
        raise HttpError(401, "auth_key is not the key of this application")
    if parameters.get("auth_version") != AUTH_VERSION:
        raise HttpError(401, f"auth_version must be {AUTH_VERSION}")
    stamp = parameters.get("auth_timestamp", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise HttpError(401, "auth_timestamp must be whole seconds since 1970")
    if abs(int(stamp) - clock()) > TIMESTAMP_WINDOW_S:
        raise HttpError(401, f"auth_timestamp is more than {TIMESTAMP_WINDOW_S} seconds off: check the clock")
    # A checksum of the empty body is tolerated on requests without one: an official client sends it.
    if is_whole and (request.body or "body_md5" in parameters) and parameters.get("body_md5") != body_md5(request.body):
        raise HttpError(401, "body_md5 is missing or not the MD5 of the body")
    signed = [(name, value) for name, value in parameters.items() if name != "auth_signature"]
    signature = parameters.get("auth_signature", "")
    # All are tried, so that the time taken says nothing about which.
    right = [verify_request(app.secret, request.method, path, signed, signature) for path in _signable(request.path)]
    if not any(right):
        raise HttpError(401, "auth_signature does not match: check secret, method, path and parameters")


def _signable(path: str) -> tuple[str, ...]:
    """The forms in which a publisher may have written the path it signed: as it came, plain, or escaped.

    An HTTP client escapes what its caller signed unescaped, or the other way round. All forms mean the same call, so
    a signature over one opens no other: where the plain form could be read as another path, only what came counts.
    """
    if _PLAIN.match(path):
        return (path,)
    plain = unquote(path)
    if plain.count("/") != path.count("/") or _AMBIGUOUS.search(plain):
        return (path,)
    return tuple(dict.fromkeys((path, plain, *(quote(plain, safe=safe) for safe in _SAFE))))
