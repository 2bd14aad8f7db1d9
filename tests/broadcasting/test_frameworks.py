"""The authorization endpoints in FastAPI, Django, Flask and plain WSGI answer alike."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults

import django
import httpx2
import pytest
from django.conf import settings as django_settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import RequestFactory
from django.urls import include, path
from fastapi import FastAPI, HTTPException, Request
from flask import Flask
from flask import request as flask_request

from smartlink.broadcasting import (
    BroadcastingAuthWsgi,
    ChannelAuthorizer,
    ChannelRules,
    Grant,
    Member,
    SocketIdMiddleware,
    SocketIdWsgiMiddleware,
    current_socket_id,
)
from smartlink.broadcasting.integrations.django import broadcasting_urls
from smartlink.broadcasting.integrations.fastapi import broadcasting_router
from smartlink.broadcasting.integrations.flask import broadcasting_blueprint
from smartlink.protocol.signing import sign_channel

SOCKET = "123.456"
rules = ChannelRules()


@rules.private("user.{user_id}")
def own(user: int, user_id: int) -> bool:
    return user == user_id


@rules.private("slow.{user_id}")
async def own_slowly(user: int, user_id: int) -> bool:
    return user == user_id


@rules.presence("until.{expires_at}")
async def until(user: int, expires_at: int) -> Grant:
    return Grant(expires_at=expires_at)


authorizer: ChannelAuthorizer[int] = ChannelAuthorizer(
    rules, key="k", secret="s", member_of=lambda user: Member(user), name_user_on_private=False
)


def number(text: str | None) -> int | None:
    return int(text) if text else None


def django_user(request: Any) -> int | None:
    return number(request.headers.get("authorization"))


def django_socket(_: Any) -> Any:
    from django.http import JsonResponse

    return JsonResponse({"socket": current_socket_id()})


urlpatterns = [
    path("broadcasting/", include(broadcasting_urls(authorizer, django_user))),
    path("async/broadcasting/", include(broadcasting_urls(authorizer, django_user, is_async=True))),
    path("socket", django_socket),
    path("async/socket", django_socket),
]


@pytest.fixture(scope="module", autouse=True)
def _django() -> None:
    if not django_settings.configured:
        django_settings.configure(
            ROOT_URLCONF=__name__,
            SECRET_KEY="x" * 50,
            ALLOWED_HOSTS=["*"],
            MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
        )
        django.setup()


def fastapi_app() -> Any:
    app = FastAPI()

    async def current_user(request: Request) -> int:
        user = number(request.headers.get("authorization"))
        if user is None:
            raise HTTPException(401)
        return user

    app.include_router(broadcasting_router(authorizer, current_user), prefix="/broadcasting")

    @app.get("/socket")
    async def socket() -> dict[str, str | None]:
        return {"socket": current_socket_id()}

    return SocketIdMiddleware(app)


def flask_app() -> Any:
    app = Flask(__name__)
    blueprint = broadcasting_blueprint(authorizer, lambda: number(flask_request.headers.get("authorization")))
    app.register_blueprint(blueprint, url_prefix="/broadcasting")
    app.add_url_rule("/socket", view_func=lambda: {"socket": current_socket_id()})
    return SocketIdWsgiMiddleware(app)


def plain_wsgi() -> Any:
    auth = BroadcastingAuthWsgi(authorizer, lambda environ: number(environ.get("HTTP_AUTHORIZATION")))

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] != "/socket":
            return auth(environ, start_response)
        start_response("200 OK", [("content-type", "application/json")])
        return [json.dumps({"socket": current_socket_id()}).encode()]

    return SocketIdWsgiMiddleware(app)


Call = Callable[..., tuple[int, Any, dict[str, str]]]


def over_asgi(app: Any, prefix: str = "") -> Call:
    def call(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any, dict[str, str]]:
        import asyncio

        async def once() -> httpx2.Response:
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
                return await client.request(
                    method, prefix + path, content=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
                )

        response = asyncio.run(once())
        return response.status_code, response.json(), dict(response.headers)

    return call


def over_wsgi(app: Any) -> Call:
    def call(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any, dict[str, str]]:
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": headers.pop("content_type", ""),
            "wsgi.input": io.BytesIO(body),
        }
        environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        setup_testing_defaults(environ)
        started: list[Any] = []
        chunks = app(environ, lambda status, headers, exc_info=None: started.extend((status, headers)))
        content = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        return int(started[0][:3]), json.loads(content), {name.lower(): value for name, value in started[1]}

    return call


@pytest.fixture(params=["fastapi", "flask", "wsgi", "django over wsgi", "django over asgi", "async django"])
def call(request: pytest.FixtureRequest) -> Call:
    builders: dict[str, Callable[[], Call]] = {
        "fastapi": lambda: over_asgi(fastapi_app()),
        "flask": lambda: over_wsgi(flask_app()),
        "wsgi": lambda: over_wsgi(plain_wsgi()),
        "django over wsgi": lambda: over_wsgi(SocketIdWsgiMiddleware(WSGIHandler())),
        "django over asgi": lambda: over_asgi(SocketIdMiddleware(ASGIHandler())),
        "async django": lambda: over_asgi(SocketIdMiddleware(ASGIHandler()), "/async"),
    }
    return builders[request.param]()


def form(**fields: str) -> dict[str, Any]:
    return {"body": urlencode(fields).encode(), "content_type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("name", ["private-user.7", "private-slow.7"])
def test_a_users_own_channel_is_signed(call: Call, name: str) -> None:
    status, body, headers = call(
        "POST", "/broadcasting/auth", authorization="7", **form(socket_id=SOCKET, channel_name=name)
    )

    assert (status, body) == (200, {"auth": sign_channel("k", "s", SOCKET, name)})
    assert headers["cache-control"] == "no-store"


def test_the_end_of_a_grant_is_signed(call: Call) -> None:
    name, data = "presence-until.4000000000", '{"user_id":"7","user_info":{},"expires_at":4000000000}'

    status, body, _ = call("POST", "/broadcasting/auth", authorization="7", **form(socket_id=SOCKET, channel_name=name))

    assert (status, body) == (200, {"auth": sign_channel("k", "s", SOCKET, name, data), "channel_data": data})


def test_json_and_get_are_accepted_too(call: Call) -> None:
    fields = {"socket_id": SOCKET, "channel_name": "private-user.7"}
    as_json = call(
        "POST", "/broadcasting/auth", json.dumps(fields).encode(), content_type="application/json", authorization="7"
    )
    as_get = call("GET", f"/broadcasting/auth?{urlencode(fields)}", authorization="7")

    assert as_json[:2] == as_get[:2] == (200, {"auth": sign_channel("k", "s", SOCKET, "private-user.7")})


def test_a_user_is_signed_in(call: Call) -> None:
    status, body, _ = call("POST", "/broadcasting/user-auth", authorization="7", **form(socket_id=SOCKET))

    assert status == 200
    assert json.loads(body["user_data"])["id"] == "7"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"socket_id": SOCKET, "channel_name": "private-user.8"}, 403),
        ({"socket_id": "1.1:x", "channel_name": "private-user.7"}, 422),
        ({"socket_id": SOCKET, "channel_name": "x" * 70_000}, 413),
        ({"channel_name": "private-user.7"}, 200),
    ],
)
def test_invalid_requests_are_never_signed(call: Call, fields: dict[str, str], status: int) -> None:
    answered, body, _ = call("POST", "/broadcasting/auth", authorization="7", **form(**fields))

    assert answered == status
    assert "auth" not in body


def test_an_unauthenticated_user_gets_401(call: Call) -> None:
    status, body, _ = call("POST", "/broadcasting/auth", **form(socket_id=SOCKET, channel_name="private-user.7"))

    assert status == 401
    assert "auth" not in body


@pytest.mark.parametrize(("sent", "seen"), [("12.34", "12.34"), ("1.1:x", None), ("", None), ("1.1.1", None)])
def test_a_view_knows_the_socket_id_of_its_request(call: Call, sent: str, seen: str | None) -> None:
    assert call("GET", "/socket", x_socket_id=sent)[1] == {"socket": seen}
    assert call("GET", "/socket")[1] == {"socket": None}


class Broken(io.BytesIO):
    """A body whose sender has gone away."""

    def read(self, *_: Any) -> bytes:
        raise OSError("connection reset")

    readinto = readline = read  # type: ignore[assignment]


@pytest.mark.parametrize(
    "build",
    [plain_wsgi, flask_app, lambda: WSGIHandler()],
    ids=["wsgi", "flask", "django"],
)
def test_a_truncated_body_is_not_a_server_error(build: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> None:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/broadcasting/auth",
        "CONTENT_LENGTH": "20",
        "CONTENT_TYPE": "application/json",
        "HTTP_AUTHORIZATION": "7",
        "wsgi.input": Broken(),
    }
    setup_testing_defaults(environ)
    status: list[str] = []
    answer = build()(environ, lambda line, headers, exc_info=None: status.append(line))
    b"".join(answer)

    assert status[0].startswith("400")
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(("body", "status"), [(b"x" * 70_000, "413"), (b"channel_name=private-slow.7", "200")])
def test_flask_reads_a_body_of_unknown_length_up_to_the_limit(
    monkeypatch: pytest.MonkeyPatch, body: bytes, status: str
) -> None:
    # As before Flask 3.1: there no view may set the limit.
    monkeypatch.setattr(Flask.request_class, "max_content_length", property(lambda _: None))
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/broadcasting/auth",
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "HTTP_AUTHORIZATION": "7",
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
    }
    setup_testing_defaults(environ)
    said: list[str] = []
    b"".join(flask_app()(environ, lambda line, headers, exc_info=None: said.append(line)))

    assert said[0].startswith(status)


async def test_a_disconnected_fastapi_client_is_not_a_server_error() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", b"7"), (b"content-type", b"application/json"), (b"content-length", b"20")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/broadcasting/auth", "raw_path": b"/broadcasting/auth", "root_path": "", "query_string": b"",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    await fastapi_app()(scope, receive, send)

    assert sent[0]["status"] == 400


def multipart(boundary: str = "b0undary", **fields: str) -> dict[str, Any]:
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    body = "".join([*parts, f"--{boundary}--\r\n"]).encode()
    return {"body": body, "content_type": f"multipart/form-data; boundary={boundary}"}


def test_a_multipart_form_is_accepted_in_every_framework(call: Call) -> None:
    fields = {"socket_id": SOCKET, "channel_name": "private-user.7"}
    signed = call("POST", "/broadcasting/auth", authorization="7", **multipart(**fields))
    too_large = call("POST", "/broadcasting/auth", authorization="7", **multipart(**fields, more="x" * 70_000))
    other = call(
        "POST", "/broadcasting/auth", authorization="7", **multipart(**fields | {"channel_name": "private-user.8"})
    )

    assert signed[:2] == (200, {"auth": sign_channel("k", "s", SOCKET, "private-user.7")})
    assert too_large[0] == 413
    assert other[0] == 403


@pytest.mark.parametrize("encode", [form, multipart])
def test_a_form_that_flask_has_already_parsed_is_accepted(encode: Callable[..., Any]) -> None:
    blueprint = broadcasting_blueprint(authorizer, lambda: 7, "early")
    app = Flask(__name__)
    app.before_request(lambda: flask_request.form.get("csrf") and None)
    app.register_blueprint(blueprint, url_prefix="/broadcasting")

    status, body, _ = over_wsgi(app)(
        "POST", "/broadcasting/auth", **encode(socket_id=SOCKET, channel_name="private-user.7")
    )

    assert (status, body) == (200, {"auth": sign_channel("k", "s", SOCKET, "private-user.7")})


@pytest.mark.parametrize("is_taken_apart", [False, True])
def test_djangos_test_client_and_form_reading_middleware_work(is_taken_apart: bool) -> None:
    fields = {"socket_id": SOCKET, "channel_name": "private-user.7"}
    request = RequestFactory().post("/broadcasting/auth", fields, headers={"authorization": "7"})
    if is_taken_apart:
        assert request.POST["socket_id"] == SOCKET

    [view] = [each.callback for each in broadcasting_urls(authorizer, django_user) if each.name == "broadcasting-auth"]

    assert view(request).status_code == 200
