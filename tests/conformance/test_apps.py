"""The promises of every engine of the port `AppManager`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kit.postgres import fresh_database
from kit.waiting import eventually
from smartlink.server.apps.base import App, AppChange, AppManager, AppsInvalid, WebhookTarget
from smartlink.server.apps.database import DatabaseApps, realtime_apps, row_of
from smartlink.server.apps.file import FileApps
from smartlink.server.apps.static import StaticApps

ONE, TWO = App("1", "key-1", "secret-1"), App("2", "key-2", "secret-2")
FULL = App(
    "full",
    "key-full",
    "secret-full",
    is_enabled=False,
    max_connections=5,
    allowed_origins=(
        "https://a.test",
        "https://b.test:8443",
        "c.test",
        "*.d.test",
        "https://*.e.test",
        "http://[::1]:3000",
    ),
    message_rate=(60, 10),
    reads_per_s=7,
    cors_origins=("*",),
    sends_subscription_counts=True,
    webhooks=(
        WebhookTarget("https://hooks.test/a?b=c", ("member_added",), ("presence-",)),
        WebhookTarget("http://other.test/"),
    ),
)


class AppManagerPromises:
    """Subclassed per engine."""

    @asynccontextmanager
    async def manager(self, apps: Iterable[App], changes: list[AppChange] | None = None) -> AsyncIterator[AppManager]:
        """A started manager over these."""
        raise NotImplementedError
        yield

    async def test_an_app_is_the_same_by_key_and_by_id(self) -> None:
        async with self.manager([ONE, TWO]) as manager:
            assert manager.by_key("key-2") == manager.by_id("2") == TWO
            assert list(manager.all()) == [ONE, TWO]

    @pytest.mark.parametrize("unknown", ["", "3", "secret-1", "KEY-1", "\0", "ž" * 1_000])
    async def test_an_unknown_app_is_none(self, unknown: str) -> None:
        async with self.manager([ONE]) as manager:
            assert manager.by_key(unknown) is None
            assert manager.by_id(unknown) is None

    async def test_an_app_has_all_its_settings(self) -> None:
        async with self.manager([FULL]) as manager:
            assert manager.by_id("full") == FULL


class ChangingApps(AppManagerPromises):
    """Promises of engines whose apps change while they are served."""

    async def write(self, apps: Sequence[App]) -> None:
        raise NotImplementedError

    async def test_changes_are_reported_after_lookups_reflect_them(self) -> None:
        changes: list[AppChange] = []
        changed = replace(TWO, max_connections=7)
        async with self.manager([ONE, TWO], changes) as manager:
            await self.write([changed, App("3", "key-3", "secret-3")])
            await manager.reload()

            assert changes == [AppChange(ONE, None), AppChange(TWO, changed)]
            assert manager.by_key("key-1") is None
            assert [app.id for app in manager.all()] == ["2", "3"]
            await manager.reload()
            assert len(changes) == 2

    async def test_changes_are_noticed_without_a_reload(self) -> None:
        changes: list[AppChange] = []
        async with self.manager([ONE], changes) as manager:
            await self.write([TWO])
            await eventually(lambda: manager.by_id("2") == TWO)

        assert changes == [AppChange(ONE, None)]


class TestStaticApps(AppManagerPromises):
    @asynccontextmanager
    async def manager(self, apps: Iterable[App], changes: list[AppChange] | None = None) -> AsyncIterator[AppManager]:
        manager = StaticApps(apps)
        await manager.start(lambda _: None)
        yield manager
        await manager.stop()

    @pytest.mark.parametrize("other", [App("3", "key-1", "s"), App("1", "key-3", "s")])
    def test_two_apps_with_one_key_or_id_are_refused(self, other: App) -> None:
        with pytest.raises(AppsInvalid, match="share"):
            StaticApps([ONE, other])


def toml(apps: Iterable[App]) -> str:
    def value(of: Any) -> str:
        if isinstance(of, bool):
            return str(of).lower()
        if isinstance(of, tuple):
            return f"[{', '.join(map(value, of))}]"
        return f'"{of}"' if isinstance(of, str) else str(of)

    lines: list[str] = []
    for app in apps:
        fields = {name: of for name, of in asdict(app).items() if of is not None}
        hooks = fields.pop("webhooks")
        lines += ["[[apps]]", *(f"{name} = {value(of)}" for name, of in fields.items())]
        for hook in hooks:
            lines += ["[[apps.webhooks]]", *(f"{name} = {value(of)}" for name, of in hook.items())]
    return "\n".join(lines)


class TestFileApps(ChangingApps):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "apps.toml"

    async def write(self, apps: Iterable[App]) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(toml(apps))
        new.replace(self.path)

    @asynccontextmanager
    async def manager(self, apps: Iterable[App], changes: list[AppChange] | None = None) -> AsyncIterator[AppManager]:
        await self.write(apps)
        manager = FileApps(self.path, poll_s=0.02)
        await manager.start((changes if changes is not None else []).extend)
        yield manager
        await manager.stop()

    async def test_an_invalid_file_is_logged_and_the_old_apps_stay(self, capsys: pytest.CaptureFixture[str]) -> None:
        changes: list[AppChange] = []
        async with self.manager([ONE], changes) as manager:
            self.path.write_text('[[apps]]\nid = "1"\nkey = "key-1"\nsecret = "tell-nobody"\nmax_conections = 5')
            with pytest.raises(
                AppsInvalid, match=r"app '1': 'max_conections' is not a known key; did you mean 'max_conn"
            ):
                await manager.reload()
            self.path.write_text("[[apps")
            with pytest.raises(AppsInvalid, match="is not TOML"):
                await manager.reload()
            self.path.unlink()
            with pytest.raises(AppsInvalid, match="cannot be read: No such file"):
                await manager.reload()
            assert manager.by_id("1") == ONE
            await self.write([TWO])
            await eventually(lambda: manager.by_id("2") == TWO)

        assert changes == [AppChange(ONE, None)]
        assert "tell-nobody" not in capsys.readouterr().out

    async def test_a_file_rewritten_in_place_is_reloaded(self) -> None:
        async with self.manager([ONE]) as manager:
            self.path.write_text(toml([TWO]))
            os.utime(self.path, ns=(1, 1))
            await eventually(lambda: manager.by_id("2") == TWO)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("", "id: is required"),
        ("id = 5", "id: must be a string of 1 to 64 characters"),
        ('id = ""', "id: must be a string"),
        ('id = "a/b"', "must not contain /"),
        ('key = "ž"', "key: must be ASCII"),
        ('secret = " x"', "begin or end with a space"),
        (f'secret = "{"x" * 300}"', "secret: must be a string of 1 to 256"),
        ("is_enabled = 1", "is_enabled: must be true or false"),
        ("max_connections = 0", "max_connections: must be a whole number from 1"),
        ("max_connections = true", "max_connections: must be a whole number"),
        ('max_connections = "5"', "max_connections: must be a whole number"),
        ("max_connections = 99999999999", "max_connections: must be a whole number"),
        ("max_message_bytes = 0", "max_message_bytes: must be a whole number from 1 "),
        ("message_rate = [5]", "message_rate: must be two numbers"),
        ("message_rate = [5, 0]", "message_rate: must be a whole number from 1"),
        ('allowed_origins = "*"', "allowed_origins: must be a list"),
        ('allowed_origins = ["a.test:80"]', "'a.test:80' is not an origin"),
        ('allowed_origins = ["https://a.test/"]', "'https://a.test/' is not an origin"),
        ('allowed_origins = ["https://"]', "'https://' is not an origin"),
        ('allowed_origins = ["a-*.test"]', "'a-*.test' is not an origin"),
        ('cors_origins = ["a.test"]', "'a.test' is not an origin"),
        ('cors_origins = ["https://a.test/"]', "is not an origin"),
        ('webhooks = ["https://a.test/"]', "webhooks: number 1 must be a table"),
        ('webhooks = [{url = "ftp://a.test/"}]', "url: must be http"),
        ('webhooks = [{url = "https://u:p@a.test/"}]', "without credentials"),
        ('webhooks = [{url = "https://a.test/", event = ["x"]}]', "'event' is not a known key; did you mean 'events'"),
        ('webhooks = [{url = "https://a.test/", events = ["member_aded"]}]', "did you mean 'member_added'"),
        ('__class__ = "x"', "'__class__' is not a known key"),
    ],
)
async def test_an_invalid_app_is_refused_with_its_errors(tmp_path: Path, lines: str, fault: str) -> None:
    (tmp_path / "apps.toml").write_text(f"[[apps]]\n{lines}\n")
    with pytest.raises(AppsInvalid) as raised:
        await FileApps(tmp_path / "apps.toml").start(lambda _: None)
    assert fault in str(raised.value)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("\n", "is empty; to serve no application, write apps = []"),
        ("app = 1", "'app' is not a known key here"),
        ("apps = 5", "apps must be a list"),
        ("apps = [5]", "app number 1: must be a table"),
        (toml([ONE, replace(TWO, id="1")]), "Two apps share the id '1'"),
        (toml([ONE, replace(TWO, key="key-1")]), "'1' and '2' share a key"),
    ],
)
async def test_an_invalid_file_is_refused_with_its_errors(tmp_path: Path, content: str, fault: str) -> None:
    (tmp_path / "apps.toml").write_text(content)
    with pytest.raises(AppsInvalid) as raised:
        await FileApps(tmp_path / "apps.toml").start(lambda _: None)
    assert fault in str(raised.value)


class TestDatabaseApps(ChangingApps):
    @pytest.fixture(autouse=True)
    def _database(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path / 'apps.db'}"

    async def write(self, apps: Iterable[App]) -> None:
        writer = DatabaseApps(self.url)
        await writer.create_table()
        await writer.stop()
        self.run(realtime_apps.delete(), *(realtime_apps.insert().values(row_of(app)) for app in apps))

    def run(self, *statements: sa.Executable) -> None:
        engine = sa.create_engine(self.url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(statement)
        engine.dispose()

    @asynccontextmanager
    async def manager(self, apps: Iterable[App], changes: list[AppChange] | None = None) -> AsyncIterator[AppManager]:
        await self.write(apps)
        manager = DatabaseApps(self.url, poll_s=0.02)
        await manager.start((changes if changes is not None else []).extend)
        try:
            yield manager
        finally:
            await manager.stop()

    async def test_an_invalid_row_keeps_its_app_and_others_are_served(self) -> None:
        changes: list[AppChange] = []
        async with self.manager([ONE, TWO], changes) as manager:
            self.run(sa.update(realtime_apps).where(realtime_apps.c.id == "1").values(settings='{"max_conections": 5}'))
            self.run(sa.update(realtime_apps).where(realtime_apps.c.id == "2").values(settings='{"reads_per_s": 5}'))
            await manager.reload()
            assert manager.by_id("1") == ONE
            assert manager.by_id("2") == replace(TWO, reads_per_s=5)
            for settings in ("[]", "{", '{"secret": "x"}'):
                self.run(sa.update(realtime_apps).where(realtime_apps.c.id == "1").values(settings=settings))
                await manager.reload()
                assert manager.by_id("1") == ONE
            self.run(sa.update(realtime_apps).where(realtime_apps.c.id == "1").values(key="new", settings="{"))
            self.run(sa.update(realtime_apps).where(realtime_apps.c.id == "2").values(key="key-1"))
            await manager.reload()
            assert manager.by_key("key-1") == replace(TWO, key="key-1", reads_per_s=5)

    async def test_an_unavailable_database_changes_nothing(self, tmp_path: Path) -> None:
        async with self.manager([ONE]) as manager:
            self.run(sa.text("ALTER TABLE realtime_apps RENAME TO elsewhere"))
            with pytest.raises(AppsInvalid, match="realtime_apps is missing"):
                await manager.reload()
            assert manager.by_id("1") == ONE

    async def test_an_app_cannot_be_added_twice(self) -> None:
        async with self.manager([ONE]) as manager:
            assert isinstance(manager, DatabaseApps)
            for other in (replace(TWO, id="1"), replace(TWO, key="key-1")):
                with pytest.raises(AppsInvalid, match="already exists"):
                    await manager.add(other)

    @pytest.mark.parametrize(
        "url",
        [
            "nonsense",
            "nosuch://x",
            "postgresql://u:hidden-word@127.0.0.1:1/x",
            "postgresql://u:hidden-word@127.0.0.1:1/x?pgbouncer=true",
        ],
    )
    async def test_the_error_for_an_unusable_database_does_not_show_its_address(self, url: str) -> None:
        manager = DatabaseApps(url)
        with pytest.raises(AppsInvalid, match="REVERB_APPS_DATABASE_URL") as raised:
            await manager.start(lambda _: None)
        assert "hidden-word" not in str(raised.value)
        await manager.stop()


class TestDatabaseAppsOnPostgres(TestDatabaseApps):
    @pytest.fixture(autouse=True)
    def _database(self, postgres_url: str) -> Iterator[None]:
        with fresh_database(postgres_url) as url:
            self.url = url
            yield


def test_errors_contain_no_secret() -> None:
    assert "secret-1" not in repr(ONE)
