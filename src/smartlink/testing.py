"""A whole realtime server for an application's tests, without a port, and clients that listen to it.

def test_the_owner_hears_of_it(realtime, client):
    with realtime.sync_client() as browser:
        orders = browser.subscribe("private-orders.7", timeout_s=5).events(OrderShipped)
        client.post("/orders/7/ship")
        assert orders.get(timeout_s=5).order_id == 7

`realtime` is a fixture of the pytest plugin; without pytest, use `realtime_server`. The server runs in a thread of its
own, so that tests may be synchronous, of pytest-asyncio, or of anyio on asyncio.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from smartlink.broadcasting.authorizer import AuthRequest
from smartlink.broadcasting.broadcaster import Broadcaster
from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.drivers.pusher import PusherDriver
from smartlink.broadcasting.encryption import ChannelEncryption
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.facade import BaseBroadcasting
from smartlink.broadcasting.revocation import Revocation
from smartlink.broadcasting.sync import SyncBroadcaster
from smartlink.client import AuthorizationDenied, Client, Own, Secret, SyncClient
from smartlink.client.authorization import Authorizer
from smartlink.protocol.names import ChannelKind, kind_of
from smartlink.server.net.sockets import open_unix_socket
from smartlink.server.run.bootstrap import build
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.settings.config import ServerSettings

__all__ = ["Realtime", "realtime_server"]

DRAIN_S = 0.2
START_S = 30.0
HOST = "realtime.test"
T = TypeVar("T")

Sender = BaseBroadcasting | Broadcaster | SyncBroadcaster


class _Settings(ServerSettings):
    """Settings from arguments alone: the environment of a test run must not change what is tested."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


class Realtime:
    """A running server. `unix_socket` is its path; `app_id`, `key` and `secret` are those of its application.

    `client`, `sync_client`, `client_of` and `sync_client_of` take the options of `smartlink.client.Client`.
    """

    def __init__(self, unix_socket: str, app_id: str, key: str, secret: str, rules: BaseBroadcasting | None) -> None:
        """`realtime_server` makes them."""
        self.unix_socket = unix_socket
        self.app_id = app_id
        self.key = key
        self.secret = secret
        self._rules = rules

    def client(self, **options: Any) -> Client:
        """Return a client that may do everything, as user 1: `async with realtime.client() as client`.

        For another user, or none, pass `auth`.
        """
        return Client(f"ws://{HOST}", self.key, **self._options(None, options))

    def sync_client(self, **options: Any) -> SyncClient:
        """Return a client as `client` does, for tests without an event loop."""
        return SyncClient(f"ws://{HOST}", self.key, **self._options(None, options))

    def client_of(self, user: object, **options: Any) -> Client:
        """Return a client that may listen to what the application's rules allow `user`.

        Subscribing elsewhere raises AuthorizationDenied. Raises TypeError if the application has no `Broadcasting`.
        """
        return Client(f"ws://{HOST}", self.key, **self._options(self._authorizer(user), options))

    def sync_client_of(self, user: object, **options: Any) -> SyncClient:
        """Return a client as `client_of` does, for tests without an event loop. Rules run in the client's thread."""
        return SyncClient(f"ws://{HOST}", self.key, **self._options(self._authorizer(user), options))

    def _options(self, auth: Authorizer | None, given: Mapping[str, Any]) -> dict[str, Any]:
        by_secret = Secret(self.key, self.secret, user_id="1")
        return {"auth": auth or by_secret, "proxy": None, "unix_socket": self.unix_socket} | dict(given)

    def _authorizer(self, user: object) -> Authorizer:
        if self._rules is None:
            raise TypeError("client_of asks the rules of the application's Broadcasting, and the server knows of none")
        authorizer = self._rules.authorizer

        async def ask(endpoint: str, **form: str) -> dict[str, Any]:
            request = AuthRequest("POST", endpoint, urlencode(form).encode, "application/x-www-form-urlencoded")
            answer = await authorizer.answer(request, {"default": lambda: user})
            said: dict[str, Any] = msgspec.json.decode(answer.body)
            if answer.status != 200:
                raise AuthorizationDenied(f"{form.get('channel_name', 'sign-in')}: {said['message']}", answer.status)
            return said

        async def channel(socket_id: str, name: str) -> dict[str, Any]:
            return await ask("auth", socket_id=socket_id, channel_name=name)

        async def sign_in(socket_id: str) -> dict[str, Any]:
            return await ask("user-auth", socket_id=socket_id)

        return Own(channel, sign_in)


@contextmanager
def realtime_server(broadcasting: Sender | None = None, **settings: Any) -> Iterator[Realtime]:
    """Run a server in a thread; what `broadcasting` sends within the block goes there, whatever its driver is.

    `settings` are those of `ServerSettings`; neither the environment nor `.env` is read. The application's id, key and
    secret are those of a `Broadcasting`, else the default ones.
    """
    known = broadcasting if isinstance(broadcasting, BaseBroadcasting) else None
    key, secret = (BroadcastSettings.model_construct() if known is None else known.settings).signing_key()
    own = {"reverb_app_key": key, "reverb_app_secret": secret, "reverb_server_drain_seconds": DRAIN_S}
    config = _Settings(**own | {"reverb_webhook_queue": "memory"} | settings)  # type: ignore[arg-type]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="realtime-"))
        path = str(Path(folder) / "socket")
        thread = stack.enter_context(_running(config, path))
        app = (config.reverb_app_id, config.reverb_app_key, config.reverb_app_secret)
        if broadcasting is not None:
            driver = PusherDriver(*app, host=HOST, port=80, scheme="http", is_smartlink=True, unix_socket=path)
            stack.callback(lambda: thread.submit(driver.aclose()).result())
            if known is not None:
                stack.callback(known.sync.close)  # a thread, which a later use starts again
            for broadcaster in _broadcasters(broadcasting):
                beside = _ThereDriver(thread, driver, broadcaster.encryption)
                stack.enter_context(broadcaster.driven_by(beside))
        yield Realtime(path, *app, known)


def _broadcasters(sender: Sender) -> Iterator[Broadcaster]:
    if not isinstance(sender, Sender):
        raise TypeError(f"a server for tests gets events from a Broadcasting or a broadcaster, not {sender!r:.80}")
    if isinstance(sender, BaseBroadcasting):
        yield sender.sync.broadcaster
    yield sender if isinstance(sender, Broadcaster) else sender.broadcaster


class _LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="smartlink realtime", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


@contextmanager
def _running(settings: ServerSettings, path: str) -> Iterator[_LoopThread]:
    thread = _LoopThread()

    async def start() -> RealtimeServer:
        server = build(settings)
        await server.start([open_unix_socket(Path(path), 0o600, settings.reverb_server_backlog)])
        return server

    try:
        server = thread.submit(start()).result(START_S)
        try:
            yield thread
        finally:
            thread.submit(server.stop()).result()
    finally:
        thread.end()


class _ThereDriver:
    """Sends in the server's thread, so that no test's event loop is left with open connections.

    Seals encrypted channels' events, which `Broadcaster.driven_by` passes on unsealed.
    """

    name = "reverb"
    leaves_out_users = True
    reports_receipts = True

    def __init__(self, thread: _LoopThread, driver: PusherDriver, encryption: ChannelEncryption | None) -> None:
        self._thread = thread
        self._driver = driver
        self._encryption = encryption

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Send as PusherDriver does."""
        sealed = [self._sealed(envelope) for envelope in envelopes]
        await asyncio.wrap_future(self._thread.submit(self._driver.send(sealed, idempotency_key=idempotency_key)))

    async def revoke(self, revocation: Revocation) -> None:
        """Revoke as PusherDriver does."""
        await asyncio.wrap_future(self._thread.submit(self._driver.revoke(revocation)))

    async def aclose(self) -> None:
        """Nothing: connections belong to the server's thread."""

    def _sealed(self, envelope: Envelope) -> Envelope:
        if self._encryption is None or kind_of(envelope.channel) is not ChannelKind.ENCRYPTED:
            return envelope
        return replace(envelope, payload=self._encryption.seal(envelope.channel, envelope.payload))
