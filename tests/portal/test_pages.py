"""Pages, their headers, and the settings they read."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from kit.portal import World
from smartlink.broadcasting import BroadcastSettings
from smartlink.portal import pages
from smartlink.portal.pages import Pages, how_to_build
from smartlink.portal.shared.settings import PortalSettings, UnsafeSettings, async_url, check_start


@pytest.fixture
def site(tmp_path: Path) -> Pages:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "app-1a2b.js").write_text("export {}")
    (tmp_path / "index.html").write_text("<title>SmartLink</title>")
    return Pages(tmp_path)


async def _get(site: Pages, path: str, accept: str = "text/html", encodings: str = "gzip, br") -> httpx2.Response:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=site), base_url="http://t") as client:
        return await client.get(path, headers={"accept": accept, "accept-encoding": encodings})


async def test_hashed_files_are_cached_for_good_and_the_page_is_not(site: Pages) -> None:
    asset, page, deep = (
        await _get(site, "/assets/app-1a2b.js"),
        await _get(site, "/"),
        await _get(site, "/chat/general"),
    )

    assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert page.headers["cache-control"] == deep.headers["cache-control"] == "no-cache"
    assert deep.text == page.text == "<title>SmartLink</title>"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br", "br"),
        ("gzip;q=1.0", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0.5", "br"),
        ("identity", ""),
    ],
)
@pytest.mark.parametrize("path", ["/assets/app-1a2b.js", "/", "/chat/general"])
async def test_browsers_get_the_smallest_form_that_they_accept(
    site: Pages, tmp_path: Path, accepted: str, coding: str, path: str
) -> None:
    """Of what was compressed when the pages were built; sizes stand for the content here."""
    names = {"br": ".br", "gzip": ".gz", "": ""}
    for original in (tmp_path / "assets" / "app-1a2b.js", tmp_path / "index.html"):
        for ending in (".br", ".gz"):
            original.with_name(original.name + ending).write_bytes(ending.encode())
    plain = await _get(site, path, encodings="identity")

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=site), base_url="http://t") as client:
        headers = {"accept": "text/html", "accept-encoding": accepted}
        async with client.stream("GET", path, headers=headers) as answer:
            content = b"".join([part async for part in answer.aiter_raw()])

    assert answer.headers.get("content-encoding", "") == coding
    assert content == (names[coding].encode() if coding else plain.content)
    assert answer.headers["vary"] == "accept-encoding"
    assert answer.headers["content-type"].partition(";")[0] == plain.headers["content-type"].partition(";")[0]
    assert answer.headers["cache-control"] == plain.headers["cache-control"]


@pytest.mark.parametrize("path", ["/api/nothing", "/assets/gone.js", "/broadcasting/x", "/webhooks/x"])
async def test_an_unknown_file_is_404_even_for_a_browser(site: Pages, path: str) -> None:
    answer = await _get(site, path)

    assert (answer.status_code, answer.json()) == (404, {"message": "Not found."})


async def test_only_requests_accepting_html_get_the_page(site: Pages) -> None:
    assert (await _get(site, "/somewhere", accept="application/json")).status_code == 404


async def test_head_requests_are_supported(world: World) -> None:
    answer = await world.client().head("/up")

    assert (answer.status_code, answer.content) == (200, b"")


async def test_every_response_has_a_content_security_policy(world: World) -> None:
    client = world.client()

    for path in ("/docs", "/api/realtime", "/api/user", "/nothing"):
        policy = (await client.get(path)).headers["content-security-policy"]
        assert policy.startswith("default-src 'self'")
        assert "ws://127.0.0.1:8080" in policy
        assert "unsafe-inline" not in policy
    assert "<script>" not in (await client.get("/docs")).text


async def test_pages_get_the_realtime_servers_address_at_run_time(database_url: str) -> None:
    world = World(database_url, {"reverb_public_host": "ws.example.com", "reverb_public_port": 443,
                                 "reverb_public_scheme": "https"})  # fmt: skip

    answer = await world.client().get("/api/realtime")

    assert answer.json() == {"key": "app-key", "host": "ws.example.com", "port": 443, "scheme": "https"}
    await world.aclose()


@pytest.mark.parametrize("name", ["REVERB_PUBLIC_HOST", "VITE_REVERB_HOST", "MIX_REVERB_HOST"])
def test_the_public_host_has_aliases(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "ws.example.com")

    assert PortalSettings(_env_file=None).realtime["host"] == "ws.example.com"


def test_sample_or_short_secrets_are_refused_unless_on_loopback() -> None:
    open_to_all = {"_env_file": None, "app_host": "0.0.0.0"}

    for secret in ("app-secret", "short", ""):
        with pytest.raises(UnsafeSettings, match="REVERB_APP_SECRET"):
            check_start(
                PortalSettings(**open_to_all, broadcast=BroadcastSettings(_env_file=None, reverb_app_secret=secret))
            )
    check_start(PortalSettings(**open_to_all, broadcast=BroadcastSettings(_env_file=None, reverb_app_secret="s" * 40)))
    check_start(PortalSettings(_env_file=None))


def test_the_database_url_is_built_from_several_forms_of_settings() -> None:
    parts = PortalSettings(_env_file=None, db_connection="pgsql", db_username="me", db_password="p@:/", db_database="d")

    assert parts.url == "postgresql+asyncpg://me:p%40%3A%2F@127.0.0.1:5432/d"
    assert async_url("postgres://h/d") == "postgresql+asyncpg://h/d"
    assert async_url("sqlite:///x.db") == "sqlite+aiosqlite:///x.db"
    with pytest.raises(ValueError, match="mysql"):
        async_url("mysql://h/d")


async def test_without_built_pages_the_page_names_the_build_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "STATIC", tmp_path)

    for path in ("/", "/wallet"):
        page = await _get(Pages(tmp_path), path)
        assert page.status_code == 503
        assert "<code>make pages</code>" in page.text
    assert (await _get(Pages(tmp_path), "/wallet", accept="application/json")).status_code == 404
    assert how_to_build() == "make pages"
    (tmp_path / "index.html").write_text("<html>")
    assert how_to_build() is None


async def test_static_files_may_come_from_a_cdn(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<script src="/assets/app-1a2b.js"></script>')

    page = await _get(Pages(tmp_path, "https://cdn.example"), "/")

    assert page.text == '<script src="https://cdn.example/assets/app-1a2b.js"></script>'
    assert page.headers["cache-control"] == "no-cache"
