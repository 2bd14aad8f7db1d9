"""The WSGI app for Echo, for Flask and other WSGI frameworks; `routes` has the ASGI app."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from smartlink.broadcasting.authorizer import MAX_BODY_BYTES, AuthRequest, ChannelAuthorizer, RequestRefused

__all__ = ["BroadcastingAuthWsgi"]

User = TypeVar("User")
Environ = dict[str, Any]
Authenticate = Callable[[Environ], User | None]


class BroadcastingAuthWsgi(Generic[User]):
    """Serves a `ChannelAuthorizer` over WSGI.

    `authenticate` gets the WSGI environ and returns the user, or None for 401; it may raise `RequestRefused`. Pass a
    mapping of names to functions for several guards; the first is for rules without guards.
    """

    def __init__(
        self, authorizer: ChannelAuthorizer[User], authenticate: Authenticate[User] | Mapping[str, Authenticate[User]]
    ) -> None:
        self._authorizer = authorizer
        self._guards = authenticate if isinstance(authenticate, Mapping) else {"default": authenticate}

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = AuthRequest(
            method=environ["REQUEST_METHOD"],
            path=environ.get("PATH_INFO", ""),
            read=partial(_read, environ),
            content_type=environ.get("CONTENT_TYPE", ""),
            query=environ.get("QUERY_STRING", ""),
        )
        guards = {name: partial(guard, environ) for name, guard in self._guards.items()}
        answer = self._authorizer.answer_sync(request, guards)
        # WSGI does not allow hop-by-hop headers.
        headers = [(name, value) for name, value in answer.all_headers.items() if name != "connection"]
        start_response(f"{answer.status} {_phrase(answer.status)}", headers)
        return [answer.body]


def _read(environ: Environ) -> bytes:
    declared = environ.get("CONTENT_LENGTH") or "0"
    if not (declared.isascii() and declared.isdigit()):
        raise RequestRefused(400, "The Content-Length is not a number.")
    if len(declared) > 9 or int(declared) > MAX_BODY_BYTES:
        raise RequestRefused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
    try:
        body: bytes = environ["wsgi.input"].read(int(declared))
    except OSError:
        raise RequestRefused(400, "The body is incomplete.") from None
    return body


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"
