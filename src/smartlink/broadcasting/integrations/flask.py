"""Flask: a blueprint that gets the user from your function, called within the request's context.

app.register_blueprint(broadcasting_blueprint(authorizer, current_user), url_prefix="/broadcasting")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from smartlink.broadcasting.authorizer import MAX_BODY_BYTES, AuthRequest, ChannelAuthorizer, FormBody, RequestRefused
from smartlink.broadcasting.socket_id import SocketIdWsgiMiddleware

__all__ = ["broadcasting_blueprint"]

User = TypeVar("User")
UserOf = Callable[[], User | None]


def broadcasting_blueprint(
    authorizer: ChannelAuthorizer[User],
    current_user: UserOf[User] | Mapping[str, UserOf[User]],
    name: str = "broadcasting",
) -> Blueprint:
    """Return a blueprint with `/auth` and `/user-auth`, for GET and POST.

    `current_user` returns the user, or None for 401; it may raise `RequestRefused` or call Flask's `abort`. Pass a
    mapping of names to functions for several guards.
    """
    blueprint = Blueprint(name, __name__)
    guards = current_user if isinstance(current_user, Mapping) else {"default": current_user}

    def answer() -> Response:
        auth_request = AuthRequest(
            method=request.method,
            path=request.path,
            read=_read,
            content_type=request.headers.get("content-type", ""),
            query=request.query_string.decode("latin-1"),
        )
        said = authorizer.answer_sync(auth_request, guards)
        headers = {name: value for name, value in said.all_headers.items() if name != "connection"}
        return Response(said.body, said.status, headers)

    for path in ("/auth", "/user-auth"):
        blueprint.add_url_rule(path, path.strip("/"), answer, methods=["GET", "POST"])
    return blueprint


def install(
    app: Flask,
    authorizer: ChannelAuthorizer[Any] | None,
    user: UserOf[Any] | Mapping[str, UserOf[Any]] | None,
    prefix: str,
    before_request: Callable[[], None] | None,
) -> None:
    """Add the middleware, and the blueprint if `authorizer` and `user` are given. Called by `Broadcasting.install`."""
    app.wsgi_app = SocketIdWsgiMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    if before_request is not None:
        app.before_request(before_request)
    if authorizer is not None and user is not None:
        app.register_blueprint(broadcasting_blueprint(authorizer, user), url_prefix=prefix)


def _read() -> bytes:
    too_large = RequestRefused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise too_large
    proxy: Any = request
    if "form" in vars(proxy._get_current_object()):  # noqa: SLF001 - the documented way behind the proxy
        # Something has already parsed the body and consumed its stream.
        return FormBody(urlencode(list(request.form.items(multi=True))).encode())
    body = b""
    try:
        while chunk := request.stream.read(MAX_BODY_BYTES + 1 - len(body)):
            body += chunk
    except RequestEntityTooLarge:  # than the application's own MAX_CONTENT_LENGTH
        raise too_large from None
    if len(body) > MAX_BODY_BYTES:
        raise too_large
    return body
