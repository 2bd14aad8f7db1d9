"""The image that `scripts/images.sh build` makes of deploy/Dockerfile, and the services of compose.yml started from it."""

from __future__ import annotations

import json
import re
import signal
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from kit.compose import compose, seconds
from kit.containers import Container, Image, Network, buildah, built_image, network
from kit.deployment import certificate
from kit.postgres import binary
from kit.proxies import render
from kit.waiting import wait_until

pytestmark = [pytest.mark.images, pytest.mark.timeout(900)]
SIZE_LIMIT = 250_000_000
OURS = ("smartlink-app", "smartlink-reverb", "smartlink-worker", "smartlink-migrate")
VALUES = {
    "APP_URL": "https://chat.example.com:8443",
    "PUBLIC_HOST": "chat.example.com",
    "PUBLIC_PORT": "8443",
    "TLS_FOLDER": "/etc/tls",
    "DB_PASSWORD": "a-password-of-the-database",
    "REDIS_PASSWORD": "a-password-of-redis",
    "REVERB_APP_ID": "4711",
    "REVERB_APP_KEY": "key-of-ours",
    "REVERB_APP_SECRET": "a-secret-of-ours-that-is-long-enough-for-all",
}
TOOLS_OF_BUILDERS = r"(^|/)(bin|sbin)/(gcc|cc|c\+\+|g\+\+|clang|ld|as|strip|make|npm|node|pip3?|git|curl|wget)$"
CASE = Path(__file__).with_name("through_the_proxy.py")


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with built_image() as unpacked:
        yield unpacked


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Each layer's archive: files that a later layer deletes are still in an earlier one."""
    folder = tmp_path_factory.mktemp("image")
    buildah("push", "localhost/smartlink", f"oci:{folder}")
    index = json.loads((folder / "index.json").read_text())
    blobs = folder / "blobs" / "sha256"

    def blob(descriptor: dict[str, Any]) -> Path:
        return blobs / str(descriptor["digest"]).partition(":")[2]

    manifest = json.loads(blob(index["manifests"][0]).read_text())
    return [blob(layer) for layer in manifest["layers"]]


def files(layer: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(layer) as archive:
        for entry in archive:
            content = archive.extractfile(entry) if entry.isfile() else None
            yield entry.name, b"" if content is None else content.read()


def test_it_is_small() -> None:
    (size,) = [each["size"] for each in json.loads(buildah("images", "--json", "localhost/smartlink"))]
    number, unit = str(size).split()

    assert float(number) * {"MB": 1e6, "GB": 1e9}[unit] <= SIZE_LIMIT, size


def test_no_layer_has_a_secret_or_a_compiler(layers: list[Path]) -> None:
    found = []
    for number, layer in enumerate(layers):
        for name, content in files(layer):
            if re.search(TOOLS_OF_BUILDERS, name) or re.search(
                r"(^|/)(\.git|\.npmrc|\.env|node_modules|\.ssh)(/|$)", name
            ):
                found.append((number, name))
            if number and re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=]{20}", content):
                found.append((number, name))

    assert found == []


def test_no_layer_has_leftovers_of_the_build(layers: list[Path]) -> None:
    """Without the first layer: the base, which stands in for the official one."""
    left = [
        name
        for layer in layers[1:]
        for name, content in files(layer)
        if content and re.match(r"(var/lib/apt/lists|var/cache/apt|root|tmp|build)/", name)
    ]

    assert left == []


@pytest.mark.parametrize("house", ["portal", "server/observe"])
def test_the_built_pages_are_in_the_image(house: str, image: Image) -> None:
    (index,) = image.root.glob(f"opt/smartlink/lib/python3*/site-packages/smartlink/{house}/static/index.html")

    scripts = re.findall(r'src="(?:\./|/)?((?:\w[\w-]*/)*[\w.-]+\.js)"', index.read_text())
    assert scripts
    for script in scripts:
        assert (index.parent / script).is_file(), script


def test_each_service_has_a_health_check_and_the_image_has_none(image: Image) -> None:
    given = compose(VALUES)["services"]

    assert "HEALTHCHECK" not in (Path(__file__).parents[2] / "deploy" / "Dockerfile").read_text()
    for name in OURS:
        check = given[name]["healthcheck"]
        assert check.get("disable") or check["test"][0] == "CMD"


class Composed:
    """`docker compose up`: each service when what it depends on is as it asks."""

    def __init__(self, folder: Path, image: Image, wired: Network) -> None:
        self.folder = folder
        self.services: dict[str, Any] = compose(VALUES)["services"]
        self.running: dict[str, list[Container]] = {}
        self.started: list[str] = []
        self._image = image
        self.network = wired

    def up(self) -> None:
        for name in self.services:
            self._up(name)

    def _up(self, name: str) -> None:
        if name in self.running:
            return
        for needed, how in self.services[name].get("depends_on", {}).items():
            self._up(needed)
            for container in self.running[needed]:
                if how["condition"] == "service_completed_successfully":
                    assert container.wait() == 0, container.said
                else:
                    wait_until(lambda each=container, of=needed: self.is_healthy(of, each), what=f"{needed} is healthy")
        replicas = int(self.services[name].get("deploy", {}).get("replicas", 1))
        self.running[name] = [self._container(name) for _ in range(replicas)]
        self.started.append(name)
        for container in self.running[name]:
            container.start()

    def is_healthy(self, name: str, container: Container) -> bool:
        assert container.is_running, f"{name} ended:\n{container.said[-3000:]}"
        kind, *command = self.services[name]["healthcheck"]["test"]
        words = command if kind == "CMD" else ["sh", "-c", *command]
        return container.run(words).returncode == 0

    def _container(self, name: str) -> Container:
        service = self.services[name]
        environment = {key: str(value) for key, value in service.get("environment", {}).items()}
        address = self.network.address(name, *([VALUES["PUBLIC_HOST"]] if name == "smartlink-proxy" else []))
        if name in OURS:
            return Container(
                name, self.network, address, service["command"], environment, self._image, tmpfs=service["tmpfs"]
            )
        command, user, more = self._of_this_machine(name, service)
        return Container(name, self.network, address, command, environment | more, user=user)

    def _of_this_machine(self, name: str, service: dict[str, Any]) -> tuple[list[str], str, dict[str, str]]:
        """Other images are not available here: their programs run from this machine, with the same settings."""
        data = self.folder / name
        data.mkdir(mode=0o777)
        data.chmod(0o777)
        if name == "smartlink-redis":
            shell, flag, script = service["command"]
            return (
                [shell, flag, script.replace("/run/redis", str(data)).replace("/data", str(data)) + " --bind 0.0.0.0"],
                "nobody",
                {},
            )
        if name == "smartlink-proxy":
            given = {key: str(value) for key, value in service["environment"].items() if key.startswith("PROXY_")}
            cert, key = certificate(data)
            key.chmod(0o644)
            given |= {"PROXY_TEMP": str(data), "PROXY_CERTIFICATE": str(cert), "PROXY_CERTIFICATE_KEY": str(key)}
            for servers in ("PROXY_APP_SERVERS", "PROXY_REALTIME_SERVERS"):
                given[servers] = given[servers].replace(" resolve", "")  # younger than some nginx
            config = data / "nginx.conf"
            config.write_text(render("nginx.conf.template", given))
            return ["/usr/sbin/nginx", "-c", str(config), "-g", "daemon off;"], "nobody", {}
        # As the entry point of the official image.
        script = (
            f'umask 077; cd {data}; printf %s "$POSTGRES_PASSWORD" > password; '
            f'{binary("initdb")} -D {data}/data -U "$POSTGRES_USER" --pwfile=password -A scram-sha-256 -E UTF8 --no-sync; '
            f'echo "create database \\"$POSTGRES_DB\\"" | {binary("postgres")} --single -D {data}/data postgres; '
            f'echo "host all all all scram-sha-256" >> {data}/data/pg_hba.conf; '
            f"exec {binary('postgres')} -D {data}/data -c listen_addresses=* -c unix_socket_directories={data}"
        )
        return ["bash", "-c", script], "postgres", {}

    def down(self) -> None:
        for name in reversed(self.started):
            for container in self.running[name]:
                container.end()


@pytest.fixture(scope="module")
def composed(image: Image) -> Iterator[Composed]:
    with TemporaryDirectory(prefix="smartlink-composed-") as name, network(Path(name)) as wired:
        folder = Path(name)
        folder.chmod(0o755)
        wired.hosts.chmod(0o644)
        up = Composed(folder, image, wired)
        try:
            up.up()
            yield up
        finally:
            up.down()


def test_every_service_gets_healthy(composed: Composed) -> None:
    for name, containers in composed.running.items():
        for container in containers:
            if name != "smartlink-migrate":
                wait_until(lambda each=container, of=name: composed.is_healthy(of, each), what=f"{name} is healthy")

    assert len(composed.running["smartlink-reverb"]) == 2
    order = composed.started
    assert order.index("smartlink-db") < order.index("smartlink-migrate") < order.index("smartlink-app")


def test_each_service_has_no_capabilities_and_a_read_only_root(composed: Composed) -> None:
    for name in set(OURS) - {"smartlink-migrate"}:
        container = composed.running[name][0]
        status = Path(f"/proc/{container.pid}/status").read_text()
        assert re.search(r"^Uid:\s+10001\s+10001\s+10001\s+10001$", status, re.MULTILINE), name
        assert "NoNewPrivs:\t1" in status
        for rights in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
            assert f"{rights}:\t{0:016x}" in status, (name, rights)
        for folder in ("/srv/smartlink", "/opt/smartlink", "/etc", "/var"):
            tried = container.run(["sh", "-c", f"touch {folder}/here"])
            assert re.search("Read-only file system|Permission denied", tried.stderr), folder
        assert container.run(["sh", "-c", "touch /srv/smartlink/here"]).stderr.count("Read-only file system") == 1
        assert container.run(["sh", "-c", "touch /tmp/here && rm /tmp/here"]).returncode == 0


def test_a_message_passes_through_all_services(composed: Composed) -> None:
    done = composed.network.run(
        [sys.executable, str(CASE), VALUES["APP_URL"], VALUES["REVERB_APP_KEY"]], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "heard: Hello from the image"


def test_doctor_and_backup_work_inside_the_image(composed: Composed) -> None:
    app = composed.running["smartlink-app"][0]
    checks = "settings,keys,database,redis,webhooks,realtime"

    doctor = app.run(["smartlink", "doctor", f"--only={checks}"])
    backup = app.run(["smartlink", "db", "backup", "/tmp/backup"])

    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert backup.returncode == 0, backup.stdout + backup.stderr


def test_each_service_stops_within_its_grace_period(composed: Composed) -> None:
    for name in ("smartlink-worker", "smartlink-reverb", "smartlink-app"):
        service = composed.services[name]
        for container in composed.running[name]:
            assert container.stop(signal.SIGTERM, seconds(service["stop_grace_period"])) == 0, container.said[-2000:]
            assert "Traceback" not in container.said
