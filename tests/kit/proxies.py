"""The proxies of deploy/proxy as real processes, each with the configuration that is in the repository."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit import processes
from kit.ports import free_port
from kit.services import Service

__all__ = ["PROXIES", "Apache", "Caddy", "HAProxy", "Lighttpd", "Nginx", "Place", "Proxy", "Varnish", "render"]

TEMPLATES = Path(__file__).parents[2] / "deploy" / "proxy"


def render(template: str, values: Mapping[str, str]) -> str:
    """A file of deploy/proxy, filled in as envsubst does; a name without a value is an error."""
    text = (TEMPLATES / template).read_text()
    return re.sub(r"\$\{(PROXY_[A-Z0-9_]+)\}", lambda found: values[found[1]], text)


def program(name: str) -> str:
    """Where it is; skips the test where it is not."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: scripts/setup.sh proxies")
    return found


@dataclass(frozen=True)
class Place:
    """Where a proxy stands: what it listens on, all on loopback, and what is behind it."""

    url: str
    port: int
    plain_port: int
    inside_port: int
    app_port: int
    node_ports: tuple[int, int]
    certificate: Path
    key: Path


class Proxy(ABC):
    """One proxy. Started again, it stands at the same place."""

    name: str
    tries_another_node = True
    """Whether a handshake that a dead node does not take goes to the other one at once."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = Path(tempfile.mkdtemp(prefix=f"smartlink-{self.name}-"))
        app, (one, other) = place.app_port, place.node_ports
        self.values = {
            "PROXY_TEMP": str(self.folder),
            "PROXY_ADDRESS": "127.0.0.1",
            "PROXY_PORT": str(place.port),
            "PROXY_PLAIN_PORT": str(place.plain_port),
            "PROXY_INSIDE_ADDRESS": "127.0.0.1",
            "PROXY_INSIDE_PORT": str(place.inside_port),
            "PROXY_PUBLIC_URL": place.url,
            "PROXY_CERTIFICATE": str(place.certificate),
            "PROXY_CERTIFICATE_KEY": str(place.key),
            "PROXY_APP_HOST": "127.0.0.1",
            "PROXY_APP_PORT": str(app),
            "PROXY_NODE1_HOST": "127.0.0.1",
            "PROXY_NODE1_PORT": str(one),
            "PROXY_NODE2_HOST": "127.0.0.1",
            "PROXY_NODE2_PORT": str(other),
        }
        self.services = self._services()

    @abstractmethod
    def _services(self) -> list[Service]:
        """Write the configuration, and say what to start."""

    @abstractmethod
    def reload(self) -> None:
        """As an operator does after a change of the configuration."""

    @property
    def said(self) -> str:
        return "".join(service.said for service in self.services)

    @property
    def is_running(self) -> bool:
        return all(service.is_running for service in self.services)

    def start(self) -> None:
        for service in self.services:
            service.start()

    def end(self) -> None:
        """At once, with all that it started; open sockets end."""
        for service in self.services:
            service.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, template: str) -> Path:
        file = self.folder / template.removesuffix(".template")
        file.write_text(render(template, self.values))
        return file

    def _service(self, *command: str, name: str = "", **environment: str) -> Service:
        return Service(name or self.name, list(command), self.folder, dict(os.environ) | environment)


class Nginx(Proxy):
    name = "nginx"

    def _services(self) -> list[Service]:
        place = self.place
        servers = [
            f"server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;" for port in (place.app_port, *place.node_ports)
        ]
        self.values |= {
            "PROXY_LISTEN": f"127.0.0.1:{place.port} ssl",
            "PROXY_LISTEN_PLAIN": f"127.0.0.1:{place.plain_port}",
            "PROXY_LISTEN_INSIDE": f"127.0.0.1:{place.inside_port}",
            "PROXY_RESOLVER": "127.0.0.1",
            "PROXY_APP_SERVERS": servers[0],
            "PROXY_REALTIME_SERVERS": " ".join(servers[1:]),
        }
        config = self._write("nginx.conf.template")
        # Else the workers of a proxy that root starts run as somebody who may not read the test's folder.
        more = "daemon off;" if os.getuid() else "daemon off; user root;"
        return [self._service(program("nginx"), "-c", str(config), "-g", more)]

    def reload(self) -> None:
        self.services[0].signal(signal.SIGHUP)


class HAProxy(Proxy):
    name = "haproxy"

    def _services(self) -> list[Service]:
        both = self.folder / "certificate.pem"
        both.write_bytes(self.place.certificate.read_bytes() + self.place.key.read_bytes())
        self.values["PROXY_CERTIFICATE"] = str(both)
        return [self._service(program("haproxy"), "-W", "-db", "-f", str(self._write("haproxy.cfg.template")))]

    def reload(self) -> None:
        self.services[0].signal(signal.SIGUSR2)


class Caddy(Proxy):
    name = "caddy"

    def _services(self) -> list[Service]:
        self._config = str(self._write("Caddyfile.template"))
        run = [program("caddy"), "run", "--config", self._config, "--adapter", "caddyfile"]
        return [
            self._service(*run, HOME=str(self.folder), XDG_CONFIG_HOME=str(self.folder), XDG_DATA_HOME=str(self.folder))
        ]

    def reload(self) -> None:
        # Caddy leaves a configuration alone that is the running one.
        command = [program("caddy"), "reload", "--config", self._config, "--adapter", "caddyfile", "--force",
                   "--address", f"unix/{self.folder}/caddy.sock"]  # fmt: skip
        done = processes.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class Apache(Proxy):
    name = "apache"

    def _services(self) -> list[Service]:
        self.values["PROXY_MODULES"] = "/usr/lib/apache2/modules"
        user = [] if os.getuid() else ["-c", "User www-data", "-c", "Group www-data"]
        self.folder.chmod(0o755)
        config = self._write("apache.conf.template")
        return [self._service(program("apache2"), "-D", "FOREGROUND", "-f", str(config), *user)]

    def reload(self) -> None:
        self.services[0].signal(signal.SIGUSR1)


class Lighttpd(Proxy):
    name = "lighttpd"

    def _services(self) -> list[Service]:
        return [self._service(program("lighttpd"), "-D", "-f", str(self._write("lighttpd.conf.template")))]

    def reload(self) -> None:
        self.services[0].signal(signal.SIGUSR1)


class Varnish(Proxy):
    """With hitch before it, which terminates TLS."""

    name = "varnish"
    tries_another_node = False  # a pipe cannot be tried again; probes find the dead node within a second

    def _services(self) -> list[Service]:
        place = self.place
        inner = free_port()
        self.values["PROXY_VARNISH_PORT"] = str(inner)
        self._vcl = str(self._write("varnish.vcl.template"))
        self._work = str(self.folder / "work")
        root = [] if os.getuid() else ["-j", "none"]
        hitch = [program("hitch"), f"--config={self._write('hitch.conf.template')}"]
        return [
            self._service(
                program("varnishd"), "-F", *root, "-n", self._work, "-f", self._vcl,
                "-a", f"public=127.0.0.1:{inner},PROXY", "-a", f"plain=127.0.0.1:{place.plain_port}",
                "-a", f"inside=127.0.0.1:{place.inside_port}", "-p", "pipe_timeout=120", "-p", "timeout_idle=75",
            ),
            self._service(*hitch, *([] if os.getuid() else ["--user=nobody"]), name="hitch"),
        ]  # fmt: skip

    def reload(self) -> None:
        self._count = getattr(self, "_count", 0) + 1
        for words in (["vcl.load", f"again{self._count}", self._vcl], ["vcl.use", f"again{self._count}"]):
            done = processes.run([program("varnishadm"), "-n", self._work, *words], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


PROXIES: tuple[type[Proxy], ...] = (Nginx, HAProxy, Caddy, Apache, Lighttpd, Varnish)
