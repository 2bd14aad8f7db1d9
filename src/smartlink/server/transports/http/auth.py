"""Authentication of HTTP API calls: the signed query. Source: Pusher Channels, "HTTP API reference: authentication"."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote, unquote, unquote_plus

from smartlink.protocol.signing import AUTH_VERSION, TIMESTAMP_WINDOW_S, body_md5, verify_request
from smartlink.server.apps.base import App
from smartlink.server.net.requests import HttpError, HttpRequest

__all__ = ["authenticate", "parse_query"]

MAX_PARAMETERS = 64
_PLAIN = re.compile(r"[-/0-9A-Za-z_.~]*\Z")
_AMBIGUOUS = re.compile(r"%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f]")
_SAFE = ("/", "/!*'()", "/!$&'()*+,;=:@")
"""Characters left unescaped in a path besides letters, digits and -._~: by some clients none, by JavaScript's
encodeURIComponent its marks, by others what RFC 3986 allows in a path.
"""


def parse_query(query: str) -> dict[str, str]:
    """A query's parameters, unescaped, names in lower case. Raises HttpError 400 if one is repeated."""
    parameters: dict[str, str] = {}
    if not query:
        return parameters
    pairs = query.split("&")
    if len(pairs) > MAX_PARAMETERS:
        raise HttpError(400, f"More than {MAX_PARAMETERS} parameters")
    is_escaped = "%" in query or "+" in query
    for pair in pairs:
        name, _, value = pair.partition("=")
        if is_escaped:
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
    """Check that `request` was signed for `app`. Raises HttpError 401, naming the part that is wrong.

    If its body is still to come, everything but the body is checked; the signature covers its MD5.
    """
    if not _is_same(parameters.get("auth_key", ""), app.key):
        raise HttpError(401, "auth_key is not the key of this application")
    if parameters.get("auth_version") != AUTH_VERSION:
        raise HttpError(401, f"auth_version must be {AUTH_VERSION}")
    stamp = parameters.get("auth_timestamp", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise HttpError(401, "auth_timestamp must be whole seconds since 1970")
    if abs(int(stamp) - clock()) > TIMESTAMP_WINDOW_S:
        raise HttpError(401, f"auth_timestamp is more than {TIMESTAMP_WINDOW_S} seconds off: check the clock")
    # Accept a checksum of the empty body on requests without one: an official client sends it.
    if is_whole and (request.body or "body_md5" in parameters) and parameters.get("body_md5") != body_md5(request.body):
        raise HttpError(401, "body_md5 is missing or not the MD5 of the body")
    signed = parameters.copy()
    signature = signed.pop("auth_signature", "")
    # Try all of them, so that the time taken does not reveal which matches.
    right = [
        verify_request(app.secret, request.method, path, signed.items(), signature) for path in _signable(request.path)
    ]
    if True not in right:
        raise HttpError(401, "auth_signature does not match: check secret, method, path and parameters")


def _is_same(received: str, expected: str) -> bool:
    if received.isascii() and expected.isascii():
        return hmac.compare_digest(received, expected)
    return hmac.compare_digest(received.encode("utf-8", "replace"), expected.encode())


@lru_cache(maxsize=256)
def _signable(path: str) -> tuple[str, ...]:
    """The forms in which a publisher may have signed the path: as received, plain, or escaped.

    An HTTP client may escape what its caller signed unescaped, or vice versa. All forms mean the same call, so a
    signature of one permits no other. If the plain form could be read as another path, only the received form counts.
    """
    if _PLAIN.match(path):
        return (path,)
    plain = unquote(path)
    if plain.count("/") != path.count("/") or _AMBIGUOUS.search(plain):
        return (path,)
    return tuple(dict.fromkeys((path, plain, *(quote(plain, safe=safe) for safe in _SAFE))))
