"""The five services and the proxy of deploy/compose.yml, in processes instead of containers."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kit import processes
from kit.ports import free_port
from kit.proxies import Nginx, Place, Proxy
from kit.redis import RedisServer
from kit.serve import SMARTLINK
from kit.services import Service
from kit.waiting import LIMIT_S

__all__ = ["Deployment", "certificate", "deployment"]

KEY, SECRET = "key-of-the-test", "a-secret-of-the-tests-that-is-long-enough"


def certificate(folder: Path, days: int = 1, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A self-signed one for 127.0.0.1, or another name."""
    cert, key = folder / "fullchain.pem", folder / "privkey.pem"
    processes.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", str(days), "-subj", "/CN=127.0.0.1", "-addext", f"subjectAltName={name}", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


class Deployment:
    """All of it, on free ports of this machine, under `url`."""

    def __init__(
        self, folder: Path, database_url: str, redis: RedisServer, program: str, settings: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.program = program
        self.redis = redis
        self.database_url = database_url
        self.port, self.plain_port, self.inside_port, self.app_port = (free_port() for _ in range(4))
        self.node_ports = (free_port(), free_port())
        self.metrics_ports = (free_port(), free_port())
        self.url = f"https://127.0.0.1:{self.port}"
        self.certificate, key = certificate(folder)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "APP_", "DB_", "REDIS_"))}
        self.environment = kept | {
            "APP_ENV": "production",
            "APP_PORT": str(self.app_port),
            "APP_URL": self.url,
            "TRUSTED_PROXIES": "127.0.0.1",
            "DATABASE_URL": database_url,
            "REDIS_URL": redis.url,
            "REVERB_APP_ID": "77",
            "REVERB_APP_KEY": KEY,
            "REVERB_APP_SECRET": SECRET,
            "REVERB_HOST": "127.0.0.1",
            "REVERB_PORT": str(self.inside_port),
            "REVERB_PUBLIC_HOST": "127.0.0.1",
            "REVERB_PUBLIC_PORT": str(self.port),
            "REVERB_PUBLIC_SCHEME": "https",
            **settings,
        }
        self.nodes = [self._node(number, port) for number, port in enumerate(self.node_ports)]
        self.app = self._service("smartlink-app", "app", "start")
        self.worker = self._service("smartlink-worker", "worker", "start")
        self.place = Place(
            self.url,
            self.port,
            self.plain_port,
            self.inside_port,
            self.app_port,
            self.node_ports,
            self.certificate,
            key,
        )
        self.proxy: Proxy = Nginx(self.place)

    @property
    def services(self) -> list[Service]:
        return [*self.nodes, self.app, self.worker]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What an operator types, with the settings of the deployment."""
        return processes.run(
            [self.program, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120
        )

    def start(self) -> None:
        """As compose does: tables first, then whoever needs them."""
        upgraded = self.command("seed")
        assert upgraded.returncode == 0, upgraded.stderr
        for service in self.services:
            service.start()
        self.proxy.start()
        self.wait_until_up()

    def put(self, proxy: type[Proxy]) -> Proxy:
        """Another proxy in the place of the present one; up when this returns."""
        self.proxy.end()
        self.proxy = proxy(self.place)
        self.proxy.start()
        self.wait_until_up()
        return self.proxy

    def wait_until_up(self) -> None:
        ports = {node: port for node, port in zip(self.nodes, self.node_ports, strict=True) if node.is_running}
        waited_for: list[tuple[Service | Proxy, int]] = [
            *ports.items(), (self.app, self.app_port), (self.proxy, self.inside_port),
        ]  # fmt: skip
        for service, port in waited_for:
            limit = time.monotonic() + LIMIT_S
            while not _is_up(port):
                assert service.is_running, f"{service.name} ended:\n{service.said[-3000:]}"
                assert time.monotonic() < limit, f"{service.name} is not up:\n{service.said[-3000:]}"
                time.sleep(0.05)

    def trusting(self) -> ssl.SSLContext:
        """For clients: believes in the proxy's certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def end(self) -> None:
        self.proxy.end()
        for service in self.services:
            service.end()
        for service in self.services:
            assert "Traceback" not in service.said, service.said[-5000:]

    def _node(self, number: int, port: int) -> Service:
        own = {
            "REVERB_SERVER_PORT": str(port),
            "REVERB_SERVER_WORKERS": "1",
            "REVERB_METRICS_ENABLED": "true",
            "REVERB_METRICS_PORT": str(self.metrics_ports[number]),
            "REVERB_SERVER_RUNTIME_DIR": str(self.folder / "run"),
            "REVERB_SERVER_TRUSTED_PROXIES": "127.0.0.1",
            "REVERB_SERVER_DRAIN_SECONDS": "1",
            "REVERB_SCALING_ENABLED": "true",
            "REVERB_APP_ALLOWED_ORIGINS": self.url,
            "REVERB_WEBHOOK_URL": f"http://127.0.0.1:{self.app_port}/webhooks/realtime",
            "REVERB_WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{self.app_port}",
            "REVERB_WEBHOOK_QUEUE": self.redis.url.replace("/0", "/1"),
        }
        return self._service(f"smartlink-reverb-{number}", "reverb", "start", **own)

    def _service(self, name: str, *words: str, **settings: str) -> Service:
        return Service(name, [self.program, *words], self.folder, self.environment | settings)


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/up", timeout=LIMIT_S) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def deployment(
    folder: Path, database_url: str, redis: RedisServer, *, program: str = SMARTLINK, **settings: str
) -> Iterator[Deployment]:
    """Everything, running; nothing of it is left afterwards."""
    running = Deployment(folder, database_url, redis, program, settings)
    try:
        running.start()
        yield running
    finally:
        running.end()
