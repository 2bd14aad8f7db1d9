"""The five services and the proxy, as deploy/compose.yml has them, in processes instead of containers."""

from __future__ import annotations

import os
import re
import shutil
import signal
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
from kit.redis import RedisServer
from kit.serve import SMARTLINK
from kit.waiting import LIMIT_S

__all__ = ["Deployment", "Service", "certificate", "deployment", "render"]

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "deploy" / "proxy" / "nginx.conf.template"
KEY, SECRET = "key-of-the-test", "a-secret-of-the-tests-that-is-long-enough"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed one for 127.0.0.1."""
    cert, key = folder / "fullchain.pem", folder / "privkey.pem"
    processes.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def render(values: Mapping[str, str]) -> str:
    """The proxy's configuration, filled in as envsubst does; a name without a value is an error."""
    return re.sub(r"\$\{(PROXY_[A-Z_]+)\}", lambda found: values[found[1]], TEMPLATE.read_text())


class Service:
    """One process and what it started."""

    def __init__(self, name: str, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._folder = folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = processes.popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def signal(self, how: int) -> None:
        assert self._process is not None
        self._process.send_signal(how)

    def wait(self, timeout_s: float = LIMIT_S) -> int:
        """The exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """As `kill -9`, the processes that it started too."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            self._process.wait(LIMIT_S)

    def end(self) -> None:
        """Stop it as an operator does; then for good."""
        if self.is_running:
            self.signal(signal.SIGTERM)
            try:
                self.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} does not stop:\n{self.said[-3000:]}") from None
        self.kill()


class Deployment:
    """All of it, on free ports of this machine, under `url`."""

    def __init__(self, folder: Path, database_url: str, redis: RedisServer) -> None:
        self.folder = folder
        self.redis = redis
        self.database_url = database_url
        self.port, self.plain_port, self.inside_port, self.app_port = (free_port() for _ in range(4))
        self.node_ports = (free_port(), free_port())
        self.url = f"https://127.0.0.1:{self.port}"
        self.certificate, key = certificate(folder)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "APP_", "DB_", "REDIS_"))}
        self.environment = kept | {
            "APP_ENV": "production",
            "APP_PORT": str(self.app_port),
            "APP_URL": self.url,
            "TRUSTED_PROXIES": "127.0.0.0/8",
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
        }
        self.nodes = [self._node(number, port) for number, port in enumerate(self.node_ports)]
        self.app = self._service("smartlink-app", "app", "start")
        self.worker = self._service("smartlink-worker", "worker", "start")
        self.proxy = self._proxy(key)

    @property
    def services(self) -> list[Service]:
        return [*self.nodes, self.app, self.worker, self.proxy]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What an operator types, with the settings of the deployment."""
        return processes.run(
            [SMARTLINK, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120
        )

    def start(self) -> None:
        """As compose does: tables first, then whoever needs them."""
        upgraded = self.command("seed")
        assert upgraded.returncode == 0, upgraded.stderr
        for service in self.services:
            service.start()
        self.wait_until_up()

    def wait_until_up(self) -> None:
        ports = {node: port for node, port in zip(self.nodes, self.node_ports, strict=True) if node.is_running}
        for service, port in [*ports.items(), (self.app, self.app_port), (self.proxy, self.inside_port)]:
            limit = time.monotonic() + LIMIT_S
            while not _is_up(port):
                assert service.is_running, f"{service.name} ended:\n{service.said[-3000:]}"
                assert time.monotonic() < limit, f"{service.name} is not up:\n{service.said[-3000:]}"
                time.sleep(0.05)

    def trusting(self) -> ssl.SSLContext:
        """For clients: believes in the proxy's certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def end(self) -> None:
        for service in self.services:
            service.kill() if service is self.proxy else service.end()
        for service in self.services:
            assert "Traceback" not in service.said, service.said[-5000:]

    def _node(self, number: int, port: int) -> Service:
        own = {
            "REVERB_SERVER_PORT": str(port),
            "REVERB_SERVER_WORKERS": "1",
            "REVERB_SERVER_RUNTIME_DIR": str(self.folder / "run"),
            "REVERB_SERVER_TRUSTED_PROXIES": "127.0.0.0/8",
            "REVERB_SERVER_DRAIN_SECONDS": "1",
            "REVERB_SCALING_ENABLED": "true",
            "REVERB_APP_ALLOWED_ORIGINS": self.url,
            "REVERB_WEBHOOK_URL": f"http://127.0.0.1:{self.app_port}/webhooks/realtime",
            "REVERB_WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{self.app_port}",
            "REVERB_WEBHOOK_QUEUE": self.redis.url.replace("/0", "/1"),
        }
        return self._service(f"smartlink-reverb-{number}", "reverb", "start", **own)

    def _service(self, name: str, *words: str, **settings: str) -> Service:
        return Service(name, [SMARTLINK, *words], self.folder, self.environment | settings)

    def _proxy(self, key: Path) -> Service:
        temporary = self.folder / "proxy"
        temporary.mkdir()
        config = self.folder / "nginx.conf"
        nodes = " ".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;" for port in self.node_ports)
        values = {
            "PROXY_TEMP": str(temporary),
            "PROXY_LISTEN": f"127.0.0.1:{self.port} ssl",
            "PROXY_LISTEN_PLAIN": f"127.0.0.1:{self.plain_port}",
            "PROXY_LISTEN_INSIDE": f"127.0.0.1:{self.inside_port}",
            "PROXY_PUBLIC_URL": self.url,
            "PROXY_CERTIFICATE": str(self.certificate),
            "PROXY_CERTIFICATE_KEY": str(key),
            "PROXY_RESOLVER": "127.0.0.1",
            "PROXY_APP_SERVERS": f"server 127.0.0.1:{self.app_port} max_fails=1 fail_timeout=2s;",
            "PROXY_REALTIME_SERVERS": nodes,
        }
        config.write_text(render(values))
        # Else the workers of a proxy that root starts run as somebody who may not read the test's folder.
        more = "daemon off;" if os.getuid() else "daemon off; user root;"
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        return Service("smartlink-proxy", [nginx, "-c", str(config), "-g", more], self.folder, dict(os.environ))


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/up", timeout=LIMIT_S) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def deployment(folder: Path, database_url: str, redis: RedisServer) -> Iterator[Deployment]:
    """Everything, running; nothing of it is left afterwards."""
    running = Deployment(folder, database_url, redis)
    try:
        running.start()
        yield running
    finally:
        running.end()
