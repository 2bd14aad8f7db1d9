"""Operating a running server: certificates, sockets, limits, status and `--debug`."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import ssl
import stat
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from kit import processes
from kit.client import connected, raw
from kit.ports import free_port
from kit.realtime import call
from kit.receiver import receiver
from kit.reverb import Reverb, reverb
from kit.serve import SMARTLINK
from kit.waiting import LIMIT_S, eventually, eventually_told
from kit.xhr import XhrClient
from smartlink.protocol.signing import sign_channel

MANY = 16
"""Connections of which some are on each of two workers: all on one happens once in 32,768 times."""


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    processes.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1", "-keyout", str(key),
         "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def shown(port: int) -> str:
    """The certificate that a new connection sees."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)


@pytest.mark.parametrize("workers", [1, 2])
async def test_sighup_loads_a_new_certificate_and_keeps_connections(tmp_path: Path, workers: int) -> None:
    cert, key = make_certificate(tmp_path, "old.example.com")
    tls = {"reverb_server_tls_cert": cert, "reverb_server_tls_key": key}
    with reverb(tmp_path, "--workers", str(workers), "--hostname", "old.example.com", **tls) as server:
        assert "wss://old.example.com:" in server.said
        old = await asyncio.to_thread(shown, server.port)
        context = ssl.create_default_context(cafile=str(cert))
        async with connected(server.port, tls=context) as client:
            make_certificate(tmp_path, "old.example.com")
            server.signal(signal.SIGHUP)
            await eventually(lambda: server.said.count("certificate reloaded") == workers)

            new = [await asyncio.to_thread(shown, server.port) for _ in range(6)]
            assert set(new) == {cert.read_text()}
            assert new[0] != old
            assert await client.is_quiet()
            # What is wrong with the files changes nothing.
            key.write_text("nonsense")
            server.signal(signal.SIGHUP)
            await eventually(lambda: server.said.count("certificate not reloaded, keeping the current one") == workers)
            assert await asyncio.to_thread(shown, server.port) == new[0]
            assert await client.is_quiet()


@pytest.mark.parametrize(
    ("settings", "options", "told", "code"),
    [
        ({"reverb_server_tls_cert": "cert.pem", "reverb_server_tls_key": "none.pem"}, (), "cert.pem", 2),
        ({"reverb_server_tls_cert": "key.pem", "reverb_server_tls_key": "key.pem"}, (), "not valid PEM", 2),
        (
            {"reverb_server_tls_cert": "cert.pem", "reverb_server_tls_key": "key.pem"},
            ("--hostname", "other.example.com"),
            "is not for other.example.com",
            2,
        ),
        ({"reverb_server_unix_socket": "cert.pem"}, (), "not a socket", 2),
        ({"reverb_server_unix_socket_mode": "999"}, (), "REVERB_SERVER_UNIX_SOCKET_MODE", 2),
        ({"reverb_server_trusted_proxies": "here"}, (), "REVERB_SERVER_TRUSTED_PROXIES", 2),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_unusable_settings_stop_the_start_with_a_message(
    tmp_path: Path, settings: dict[str, str], options: tuple[str, ...], told: str, code: int, workers: str
) -> None:
    make_certificate(tmp_path, "localhost")

    done = Reverb(tmp_path, settings).command("start", "--workers", workers, *options)

    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_reported_although_workers_share_it(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "2") as server:
        second = server.command("start", "--workers", "2")

    assert second.returncode == 1
    assert "REVERB_SERVER_PORT" in second.stderr


async def test_a_unix_socket_serves_the_same(tmp_path: Path) -> None:
    path = tmp_path / "reverb.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    settings = {"reverb_server_unix_socket": path, "reverb_server_unix_socket_mode": "600"}
    with reverb(tmp_path, "--workers", "2", **settings) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        transport = httpx2.AsyncHTTPTransport(uds=str(path))
        async with httpx2.AsyncClient(transport=transport) as http:
            assert (await http.get("http://any/up")).status_code == 200
        async with connected(server.port) as client:
            assert await client.is_quiet()
        second = Reverb(tmp_path, settings)
        taken = await asyncio.to_thread(second.command, "start")
        assert taken.returncode == 2
        assert "reverb.sock" in taken.stderr
        assert path.exists()
    assert not path.exists()


async def test_short_of_descriptors_clients_are_refused_and_publishers_served(tmp_path: Path) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))

    with reverb(tmp_path, "--workers", "1", before=few) as server:
        async with AsyncExitStack() as stack:
            refused = 0
            for _ in range(260):
                client = await stack.enter_async_context(connected(server.port))
                refused += not client.socket_id
                if not client.socket_id:
                    assert client.refusal["code"] == 4100  # type: ignore[attr-defined]
                    client.writer.transport.abort()
            # 300 descriptors: 64 for files, a quarter of the rest for the HTTP API.
            assert 60 < refused < 120
            answer = await call(server.port, "POST", "/apps/1001/events", b'{"name":"e","channel":"c","data":""}')
            assert answer.status_code == 200
            # Even those are not endless: whoever has been idle longest makes way.
            answers = []
            for _ in range(120):
                client = await stack.enter_async_context(raw(server.port))
                client.writer.write(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
                async with asyncio.timeout(LIMIT_S):
                    answers.append((await client.reader.readuntil(b"\r\n")).split()[1])
            assert set(answers) == {b"200"}
        await eventually_up(server)


async def eventually_up(server: Reverb) -> None:
    """Wait until a client is taken again."""
    async with asyncio.timeout(LIMIT_S), httpx2.AsyncClient(verify=False, trust_env=False) as http:
        while (await http.get(f"http://127.0.0.1:{server.port}/up")).status_code != 200:
            await asyncio.sleep(0.02)
    async with connected(server.port) as client:
        assert client.socket_id


async def test_status_covers_all_workers(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "2") as server:
        async with AsyncExitStack() as stack:
            for _ in range(6):
                client = await stack.enter_async_context(connected(server.port))
                await client.subscribe("chat")
            done = await asyncio.to_thread(server.command, "status", "--json")
            report = json.loads(done.stdout)
            table = await asyncio.to_thread(server.command, "status")

        assert done.returncode == 0
        expected = {"state": "up", "connections": 6, "channels": 1, "nodes": 1, "workers": 2, "redis": "off"}
        assert report | expected == report
        assert report["uptime_s"] >= 0
        assert {"received_per_s", "published_per_s", "delivered_per_s"} <= report.keys()
        assert "except_user, id, live" in table.stdout
        assert not set("[]{}'") & set(table.stdout)
        assert "connections" in table.stdout
        wrong = server.command("status", "--json", environment={"REVERB_APP_SECRET": "w" * 40})
        assert wrong.returncode == 1
        assert "REVERB_APP_SECRET" in wrong.stdout


def test_status_says_why_a_server_cannot_be_reached(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "realtime.test")
    tls = {"reverb_server_tls_cert": cert, "reverb_server_tls_key": key}

    def told(server: Reverb, **settings: str) -> tuple[int, str]:
        done = server.command("status", "--json", environment=settings)
        return done.returncode, json.loads(done.stdout).get("problem", "")

    with reverb(tmp_path, "--workers", "1", **tls) as server:
        assert told(server, REVERB_SCHEME="https", SSL_CERT_FILE=str(cert)) == (0, "")
        assert "SSL_CERT_FILE" in told(server, REVERB_SCHEME="https")[1]
        assert "does not speak HTTP. Check REVERB_SCHEME" in told(server, REVERB_SCHEME="http")[1]
    assert "smartlink reverb start" in told(server)[1]
    plain = tmp_path / "plain"
    plain.mkdir()
    with reverb(plain, "--workers", "1") as server:
        assert "does not speak TLS. Check REVERB_SCHEME" in told(server, REVERB_SCHEME="https")[1]


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_addresses_are_in_brackets(tmp_path: Path, host: str) -> None:
    with reverb(tmp_path, "--workers", "1", reverb_server_host="::1", reverb_host=host) as server:
        status = server.command("status", "--json")
        doctor = processes.run(
            [SMARTLINK, "doctor", "--only", "realtime"], cwd=tmp_path, capture_output=True, text=True,
            env=server.environment,
        )  # fmt: skip

    assert f"ws://[::1]:{server.port}" in server.said
    assert json.loads(status.stdout)["address"] == f"http://[::1]:{server.port}"
    assert status.returncode == 0
    assert (doctor.returncode, f"[::1]:{server.port}: an event arrived" in doctor.stdout) == (0, True), doctor.stdout


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_debug_shows_frames_without_signatures(tmp_path: Path, workers: str) -> None:
    with reverb(tmp_path, "--workers", workers, "--debug") as server:
        async with connected(server.port) as client:
            await client.subscribe("presence-chat", {"user_id": "1"})
            signature = sign_channel("app-key", "app-secret", client.socket_id, "presence-chat", '{"user_id": "1"}')
            client.send("pusher:subscribe", json.dumps({"channel": "private-a", "auth": "app-key:secret-word"}))
            await client.receive()
            await call(
                server.port, "POST", "/apps/1001/events", b'{"name":"shown","channel":"presence-chat","data":""}'
            )
            await client.expect("shown")
        async with XhrClient(server.port) as by_http:
            await by_http.subscribe("chat")
            session = by_http.session.rpartition("/")[2]
        await eventually(lambda: "shown" in server.said)
        said = server.said

    assert "pusher:connection_established" in said
    assert "subscription_succeeded" in said
    assert "POST /apps/1001/events" in said
    assert signature.partition(":")[2] not in said
    assert "secret-word" not in said
    assert "/…/xhr_send" in said
    assert session not in said
    assert "auth_signature=…" in said


async def test_several_workers_send_webhooks_once_and_in_order(tmp_path: Path) -> None:
    async with receiver() as target:
        settings = {
            "reverb_webhook_url": target.url,
            "reverb_webhook_allowed_hosts": f"127.0.0.1:{target.port}",
            "reverb_webhook_grace": 0,
        }
        with reverb(tmp_path, "--workers", "2", **settings) as server:
            async with AsyncExitStack() as stack:
                for _ in range(8):
                    client = await stack.enter_async_context(connected(server.port))
                    await client.subscribe("presence-chat", {"user_id": "1"})
                await eventually(lambda: len(target.names) >= 2)
            await eventually(lambda: len(target.names) >= 4)

        assert [name for name in target.names if name.startswith("member")] == ["member_added", "member_removed"]
        assert [name for name in target.names if name.startswith("channel")] == ["channel_occupied", "channel_vacated"]


async def test_metrics_and_status_cover_all_workers_and_their_parent(tmp_path: Path) -> None:
    app, webhooks = '{app_id="1001"}', "smartlink_webhook_events_total"
    async with receiver(500) as target:
        settings = {
            "reverb_metrics_enabled": "true",
            "reverb_metrics_port": free_port(),
            "reverb_webhook_url": target.url,
            "reverb_webhook_allowed_hosts": f"127.0.0.1:{target.port}",
            "reverb_webhook_grace": 0,
        }

        async def samples() -> dict[str, float]:
            async with httpx2.AsyncClient(verify=False, trust_env=False) as http:
                text = (await http.get(f"http://127.0.0.1:{settings['reverb_metrics_port']}/metrics")).text
            lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
            return {name: float(value) for name, _, value in lines}

        async def tells(**expected: float) -> bool:
            found = await samples()
            return all(found.get(name, 0) == value for name, value in expected.items())

        with reverb(tmp_path, "--workers", "2", **settings) as server:
            async with AsyncExitStack() as stack:
                for _ in range(MANY):
                    client = await stack.enter_async_context(connected(server.port))
                    await client.subscribe("presence-chat", {"user_id": "1"})
                await call(
                    server.port, "POST", "/apps/1001/events", b'{"name":"e","channel":"presence-chat","data":""}'
                )
                await eventually(lambda: len(target.events) == 2)
                busy = {
                    f"smartlink_connections{app}": MANY,
                    f"smartlink_subscriptions{app}": MANY,
                    f"smartlink_messages_received_total{app}": MANY,
                    "smartlink_workers_ready": 2,
                    f'{webhooks}{{outcome="sent"}}': 2,
                }
                await eventually_told(lambda: tells(**busy))
                found = await samples()
                assert found["smartlink_deliveries_total"] >= MANY
                channels = {name: value for name, value in found.items() if name.startswith("smartlink_channels{")}
                assert list(channels.values()) == [1, 1]
                status = json.loads((await asyncio.to_thread(server.command, "status", "--json")).stdout)
                assert (status["webhooks_sent"], status["webhooks_failed"]) == (2, 0)
                assert status["webhooks_retried"] >= 1
            await eventually(lambda: len(target.events) == 4)
            quiet = {
                f"smartlink_connections{app}": 0,
                f"smartlink_subscriptions{app}": 0,
                f"smartlink_connections_closed_total{app}": MANY,
                f'{webhooks}{{outcome="sent"}}': 4,
            }
            await eventually_told(lambda: tells(**quiet))
            assert all(v == 0 for name, v in (await samples()).items() if name.startswith("smartlink_channels{"))
            await asyncio.to_thread(server.command, "restart")
            # What a worker counted last is told by its end at the latest, and stays.
            await eventually_told(lambda: tells(**quiet | {"smartlink_workers_ready": 2}))
