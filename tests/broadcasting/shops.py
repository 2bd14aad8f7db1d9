"""The same shop with each framework, as a process: `python shops.py FRAMEWORK DATABASE_URL PORT`.

`POST /orders/N/ship` announces within the transaction of a change: with `live=1` a live event too, with `fails=1` it rolls
back. `POST /orders/N/type` sends at once. User 7 may follow orders.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from broadcasting.front_door import Base, Order, OrderShipped, Typed, User

__all__ = ["SHOPS"]


def user_named(token: str) -> User | None:
    return User(int(token)) if token.isdecimal() else None


def add_rules(broadcasting: Any) -> None:
    @broadcasting.private("orders.{order_id}")
    def may_follow(user: User, order_id: int) -> bool:
        return user.id == 7


def fastapi_shop(url: str, port: int) -> None:
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    from smartlink.broadcasting import Broadcasting

    engine = create_async_engine(_with_driver(url, "asyncpg", "aiosqlite"))
    sessions = async_sessionmaker(engine)
    broadcasting = Broadcasting.from_env(base=Base, engine=engine)
    add_rules(broadcasting)

    async def current_user(request: Request) -> User | None:
        return user_named(request.headers.get("authorization", ""))

    app = FastAPI(lifespan=broadcasting.lifespan)
    broadcasting.install(app, user=current_user)

    @app.post("/orders/{order_id}/ship")
    async def ship(order_id: int, response: Response, live: bool = False, fails: bool = False) -> None:
        async with sessions() as session:
            session.add(Order(id=order_id, state="shipped"))
            broadcasting.announce(session, OrderShipped(order_id=order_id), to_others=True)
            if live:
                broadcasting.announce(session, Typed(order_id=order_id), to_others=True)
            if fails:
                await session.rollback()
                response.status_code = 409
            else:
                await session.commit()

    @app.post("/orders/{order_id}/type")
    async def type_(order_id: int) -> dict[str, bool]:
        return {"sent": await broadcasting.send_now(Typed(order_id=order_id), to_others=True)}

    _serve_asgi(app, port)


def starlette_shop(url: str, port: int) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from smartlink.broadcasting import Broadcasting

    engine = create_engine(_with_driver(url, "psycopg", "pysqlite"))
    broadcasting = Broadcasting.from_env(base=Base, engine=engine)
    add_rules(broadcasting)

    def current_user(request: Request) -> User | None:
        return user_named(request.headers.get("authorization", ""))

    def ship(request: Request) -> JSONResponse:  # in a thread
        order_id = request.path_params["order_id"]
        with Session(engine) as session:
            session.add(Order(id=order_id, state="shipped"))
            broadcasting.announce(session, OrderShipped(order_id=order_id), to_others=True)
            if "live" in request.query_params:
                broadcasting.announce(session, Typed(order_id=order_id), to_others=True)
            if "fails" in request.query_params:
                session.rollback()
                return JSONResponse({}, 409)
            session.commit()
        return JSONResponse({})

    async def type_(request: Request) -> JSONResponse:
        event = Typed(order_id=request.path_params["order_id"])
        return JSONResponse({"sent": await broadcasting.send_now(event, to_others=True)})

    routes = [
        Route("/orders/{order_id:int}/ship", ship, methods=["POST"]),
        Route("/orders/{order_id:int}/type", type_, methods=["POST"]),
    ]
    app = Starlette(routes=routes, lifespan=broadcasting.lifespan)
    broadcasting.install(app, user=current_user)
    _serve_asgi(app, port)


def flask_shop(url: str, port: int) -> None:
    from flask import Flask, request
    from sqlalchemy import create_engine
    from sqlalchemy.orm import scoped_session, sessionmaker

    from smartlink.broadcasting import Broadcasting

    engine = create_engine(_with_driver(url, "psycopg", "pysqlite"))
    sessions = scoped_session(sessionmaker(engine))
    broadcasting = Broadcasting.from_env(base=Base, engine=engine)
    add_rules(broadcasting)
    app = Flask(__name__)
    broadcasting.install(app, user=lambda: user_named(request.headers.get("authorization", "")))

    @app.teardown_request
    def remove_session(_: object) -> None:
        sessions.remove()

    @app.post("/orders/<int:order_id>/ship")
    def ship(order_id: int) -> Any:
        sessions.add(Order(id=order_id, state="shipped"))
        broadcasting.announce(sessions, OrderShipped(order_id=order_id), to_others=True)
        if "live" in request.args:
            broadcasting.announce(sessions, Typed(order_id=order_id), to_others=True)
        if "fails" in request.args:
            sessions.rollback()
            return {}, 409
        sessions.commit()
        return {}

    @app.post("/orders/<int:order_id>/type")
    def type_(order_id: int) -> Any:
        return {"sent": broadcasting.send_now_sync(Typed(order_id=order_id), to_others=True)}

    _serve_wsgi(app, port)


def django_shop(url: str, port: int, *, is_async: bool = False) -> None:
    import django
    from asgiref.sync import sync_to_async
    from django.conf import settings
    from django.urls import include, path
    from sqlalchemy.engine import make_url

    parts = make_url(url)
    database: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.database}
    database["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
    if parts.get_backend_name() == "postgresql":
        database = {
            "ENGINE": "django.db.backends.postgresql", "NAME": parts.database, "HOST": parts.host, "PORT": parts.port,
            "USER": parts.username,
        }  # fmt: skip
    settings.configure(
        ROOT_URLCONF=__name__, SECRET_KEY="s", ALLOWED_HOSTS=["127.0.0.1"], DATABASES={"default": database},
        INSTALLED_APPS=["smartlink.broadcasting.outbox.django"],
        MIDDLEWARE=["smartlink.broadcasting.integrations.django.socket_id_middleware"],
    )  # fmt: skip
    django.setup()

    from django.db import connection, transaction
    from django.http import HttpRequest, JsonResponse
    from django.views.decorators.csrf import csrf_exempt

    from smartlink.broadcasting.integrations.django import DjangoBroadcasting

    broadcasting = DjangoBroadcasting.from_env()
    add_rules(broadcasting)

    def current_user(request: HttpRequest) -> User | None:
        return user_named(request.headers.get("authorization", ""))

    def save_and_announce(order_id: int, live: bool, fails: bool) -> None:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO orders (id, state) VALUES (%s, 'shipped')", [order_id])
            events = [OrderShipped(order_id=order_id), *([Typed(order_id=order_id)] if live else [])]
            broadcasting.announce(*events, to_others=True)
            if fails:
                transaction.set_rollback(True)

    @csrf_exempt
    def ship(request: HttpRequest, order_id: int) -> JsonResponse:
        fails = "fails" in request.GET
        save_and_announce(order_id, "live" in request.GET, fails)
        return JsonResponse({}, status=409 if fails else 200)

    @csrf_exempt
    async def ship_async(request: HttpRequest, order_id: int) -> JsonResponse:
        fails = "fails" in request.GET
        await sync_to_async(save_and_announce)(order_id, "live" in request.GET, fails)
        return JsonResponse({}, status=409 if fails else 200)

    @csrf_exempt
    def type_(request: HttpRequest, order_id: int) -> JsonResponse:
        return JsonResponse({"sent": broadcasting.send_now_sync(Typed(order_id=order_id), to_others=True)})

    @csrf_exempt
    async def type_async(request: HttpRequest, order_id: int) -> JsonResponse:
        return JsonResponse({"sent": await broadcasting.send_now(Typed(order_id=order_id), to_others=True)})

    globals()["urlpatterns"] = [
        path("broadcasting/", include(broadcasting.urls(current_user, is_async=is_async))),
        path("orders/<int:order_id>/ship", ship_async if is_async else ship),
        path("orders/<int:order_id>/type", type_async if is_async else type_),
    ]
    if is_async:
        from django.core.asgi import get_asgi_application

        _serve_asgi(get_asgi_application(), port, lifespan="off")
    else:
        from django.core.wsgi import get_wsgi_application

        _serve_wsgi(get_wsgi_application(), port)


def django_async_shop(url: str, port: int) -> None:
    django_shop(url, port, is_async=True)


SHOPS: dict[str, Callable[[str, int], None]] = {
    "fastapi": fastapi_shop,
    "starlette": starlette_shop,
    "flask": flask_shop,
    "django": django_shop,
    "django_async": django_async_shop,
}


def _with_driver(url: str, postgresql: str, sqlite: str) -> str:
    backend, _, rest = url.partition("://")
    return f"{backend}+{postgresql if backend == 'postgresql' else sqlite}://{rest}"


def _serve_asgi(app: Any, port: int, **options: Any) -> None:
    import uvicorn

    asyncio.run(uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", ws="none", **options)).serve())


def _serve_wsgi(app: Any, port: int) -> None:
    from werkzeug.serving import make_server

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    make_server("127.0.0.1", port, app, threaded=True).serve_forever()


if __name__ == "__main__":
    SHOPS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
