"""The rules for Dockerfile, compose file, proxy and units."""

from __future__ import annotations

import configparser
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit import processes
from kit.compose import compose, seconds
from kit.deployment import certificate
from kit.proxies import render
from smartlink.broadcasting import BroadcastSettings
from smartlink.portal.shared.settings import PortalSettings
from smartlink.server.settings.config import ServerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OURS = ("smartlink-app", "smartlink-reverb", "smartlink-worker", "smartlink-migrate")
SPEC = ("smartlink-app", "smartlink-reverb", "smartlink-worker", "smartlink-db", "smartlink-redis")
VALUES = {
    "APP_URL": "https://chat.example.com",
    "PUBLIC_HOST": "chat.example.com",
    "TLS_FOLDER": "/etc/tls",
    "DB_PASSWORD": "a-password-of-the-database",
    "REDIS_PASSWORD": "a-password-of-redis",
    "REVERB_APP_ID": "4711",
    "REVERB_APP_KEY": "key-of-ours",
    "REVERB_APP_SECRET": "a-secret-of-ours-that-is-long-enough-for-all",
}


def services(values: dict[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = compose(VALUES if values is None else values)["services"]
    return found


def test_the_services_are_those_of_the_specification() -> None:
    assert set(SPEC) <= set(services())
    assert set(services()) - set(SPEC) == {"smartlink-migrate", "smartlink-proxy"}


def test_only_the_proxy_is_exposed() -> None:
    networks = compose(VALUES)["networks"]
    assert [name for name, service in services().items() if "ports" in service] == ["smartlink-proxy"]
    assert networks["data"] == {"internal": True}
    for name in ("smartlink-db", "smartlink-redis"):
        assert services()[name]["networks"] == ["data"]
    assert services()["smartlink-proxy"]["networks"] == ["front"]


@pytest.mark.parametrize("name", sorted(services()))
def test_each_service_runs_with_reduced_privileges(name: str) -> None:
    service = services()[name]

    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert "privileged" not in service
    assert service["restart"] == ("no" if name == "smartlink-migrate" else "unless-stopped")
    assert service["logging"]["options"]["max-size"]
    if name == "smartlink-migrate":
        return
    assert seconds(service["stop_grace_period"]) >= 20
    check = service["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert seconds(check["timeout"]) <= seconds(check["interval"])


def test_the_stop_timeout_exceeds_the_drain() -> None:
    reverb = services()["smartlink-reverb"]
    farewell_and_calls_s = 10

    drain_s = float(reverb["environment"]["REVERB_SERVER_DRAIN_SECONDS"])
    assert seconds(reverb["stop_grace_period"]) >= drain_s + farewell_and_calls_s


def test_services_wait_for_their_dependencies() -> None:
    for name in ("smartlink-app", "smartlink-worker", "smartlink-reverb"):
        needs = services()[name]["depends_on"]
        assert needs["smartlink-migrate"] == {"condition": "service_completed_successfully"}
        assert needs["smartlink-redis"] == {"condition": "service_healthy"}
    assert services()["smartlink-migrate"]["depends_on"] == {"smartlink-db": {"condition": "service_healthy"}}
    assert services()["smartlink-migrate"]["command"] == ["db", "upgrade"]
    for needed in services()["smartlink-proxy"]["depends_on"].values():
        assert needed == {"condition": "service_healthy"}


def test_two_nodes_are_joined_by_redis() -> None:
    reverb = services()["smartlink-reverb"]

    assert reverb["deploy"] == {"replicas": "2"}
    assert reverb["environment"]["REVERB_SCALING_ENABLED"] == "true"
    assert reverb["environment"]["REVERB_WEBHOOK_QUEUE"].startswith("redis://")


@pytest.mark.parametrize("missing", sorted(VALUES))
def test_required_variables_have_no_default(missing: str) -> None:
    with pytest.raises(KeyError, match=f"set {missing}"):
        services(VALUES | {missing: ""})


def test_the_files_contain_no_secret() -> None:
    for file in (DEPLOY / "compose.yml", DEPLOY / ".env.example", DEPLOY / "Dockerfile"):
        for line in file.read_text().splitlines():
            found = re.match(r"\s*[A-Z_]*(?:PASSWORD|SECRET|KEY|AUTH)\s*[:=]\s*(\S+)", line)
            assert found is None or found[1].startswith(("${", "/tls/")), line


def test_the_example_names_what_the_compose_file_reads() -> None:
    read = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yml").read_text()))
    listed = set(re.findall(r"^(?:# )?([A-Z_]+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE))

    assert listed == read


@pytest.mark.parametrize("name", OURS)
def test_the_example_settings_start(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in list(os.environ):
        if variable.startswith(("APP_", "REVERB_", "DB_", "REDIS_", "DATABASE_", "BROADCAST_")):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    given = services()[name]["environment"]
    for variable, value in given.items():
        monkeypatch.setenv(variable, str(value))

    server, portal = ServerSettings(), PortalSettings()

    from smartlink.portal.shared.settings import check_start

    server.check_start()
    check_start(portal)
    assert portal.is_https
    assert portal.realtime["host"] == "chat.example.com"
    known = {name.upper() for name in ServerSettings.model_fields}
    for settings in (PortalSettings, BroadcastSettings):
        for field in settings.model_fields.values():
            known |= {str(choice) for choice in getattr(field.validation_alias, "choices", ())}
    assert set(given) - known == set()


def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or processes.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not here")
    done = processes.run(
        [docker, "compose", "-f", str(DEPLOY / "compose.yml"), "config", "--quiet"],
        env=dict(os.environ) | VALUES, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, comments gone and lines joined."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_the_image_is_built_in_stages_from_locked_dependencies() -> None:
    bases = dict(rest.split("=") for name, rest in instructions() if name == "ARG")
    assert bases.keys() == {"PYTHON_IMAGE", "NODE_IMAGE"}, "what pins the bases, by --build-arg"
    assert all(re.match(r"(node|python):\d+(\.\d+)?-", base) for base in bases.values()), "a version, and never latest"
    stages = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert stages == ["${NODE_IMAGE}", "${PYTHON_IMAGE}", "tools", "${PYTHON_IMAGE}"]
    runs = " ".join(rest for name, rest in instructions() if name == "RUN")
    assert "npm ci" in runs
    assert "--require-hashes -r requirements/run.txt" in runs
    assert "--no-install-recommends" in runs
    assert "rm -rf /var/lib/apt/lists/*" in runs
    assert {name for name, _ in instructions()} <= {
        "ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD",
    }  # fmt: skip


def test_the_image_runs_unprivileged_and_handles_sigterm() -> None:
    last = instructions()
    final = last[max(index for index, (name, _) in enumerate(last) if name == "FROM") :]
    of = dict(final)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", of["USER"])
    assert of["STOPSIGNAL"] == "SIGTERM"
    for name in ("ENTRYPOINT", "CMD"):
        assert of[name].startswith("["), "the exec form: signals arrive"
    assert of["ENTRYPOINT"].startswith('["tini", "--"')
    order = [name for name, _ in final]
    assert order.index("RUN") < order.index("USER")
    assert [name for name, rest in final if name == "COPY" and "--from=" not in rest] == []


def test_the_build_context_contains_only_sources() -> None:
    rules = (ROOT / ".dockerignore").read_text().split("\n")
    assert rules[1] == "*"
    copied = {
        word for name, rest in instructions() if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    }
    for source in copied:
        assert (ROOT / source).exists(), source
        first = source.split("/")[0]
        assert any(rule.startswith(f"!{first}") for rule in rules), source
    assert "**/.env*" in rules


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    config = tmp_path / "nginx.conf"
    proxy = services()["smartlink-proxy"]["environment"]
    values = {name: str(value) for name, value in proxy.items() if name.startswith("PROXY_")} | {
        "PROXY_TEMP": str(tmp_path),
        "PROXY_CERTIFICATE": str(cert),
        "PROXY_CERTIFICATE_KEY": str(key),
        # This word is younger than some nginx; and the names are Docker's.
        "PROXY_APP_SERVERS": proxy["PROXY_APP_SERVERS"].replace(" resolve", "").replace("smartlink-app", "127.0.0.1"),
        "PROXY_REALTIME_SERVERS": "server 127.0.0.1:8080; server 127.0.0.1:8090;",
    }
    config.write_text(render("nginx.conf.template", values))
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"

    done = processes.run([nginx, "-t", "-c", str(config)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_the_proxys_timeout_exceeds_the_ping_interval() -> None:
    template = (DEPLOY / "proxy" / "nginx.conf.template").read_text()
    location = template[template.index("location ~ ^(/s/[^/]+)?/(pusher/)?app/") :]
    waits_s = int(re.search(r"proxy_read_timeout (\d+)s", location)[1])  # type: ignore[index]
    defaults = ServerSettings.model_fields

    assert waits_s > 2 * (
        defaults["reverb_app_ping_interval"].default + defaults["reverb_app_activity_timeout"].default
    )
    assert re.search(r"worker_shutdown_timeout \d+s", template)


@pytest.mark.parametrize("unit", sorted(path.name for path in (DEPLOY / "systemd").glob("*.service")))
def test_units_run_as_their_own_user(unit: str) -> None:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / unit)
    service = parser["Service"]

    assert service["User"] == service["Group"] == "smartlink"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["EnvironmentFile"] == "/etc/smartlink/smartlink.env"
    assert service["ExecStart"].startswith("/opt/smartlink/bin/smartlink ")
    if service["Type"] == "oneshot":
        return
    assert service["Restart"] == "always"
    assert "smartlink doctor --only settings,keys" in service["ExecStartPre"]
    assert seconds(service["TimeoutStopSec"]) >= 20
    assert int(service["LimitNOFILE"]) >= 16_384


SCRAPED = {"smartlink-reverb": 9601, "smartlink-app": 9602, "smartlink-worker": 9603}


def scrapes(file: str) -> dict[str, Any]:
    """What is scraped, by job."""
    jobs = yaml.safe_load((DEPLOY / "prometheus" / file).read_text())["scrape_configs"]
    return {job.pop("job_name"): job for job in jobs}


def test_prometheus_finds_the_metrics_of_each_service_of_the_compose_file() -> None:
    found = services()
    more = yaml.safe_load((DEPLOY / "prometheus" / "compose.yml").read_text())["services"]["smartlink-prometheus"]

    for name, job in scrapes("compose.prometheus.yml").items():
        ((source,),) = job.values()
        assert source["names"] == [name]
        assert source["port"] == SCRAPED[name] == metrics_port(name, found[name]["environment"])
        host = "REVERB_METRICS_HOST" if name == "smartlink-reverb" else "APP_METRICS_HOST"
        assert found[name]["environment"][host] == "0.0.0.0"
        assert set(more["networks"]) & set(found[name]["networks"])
        assert "ports" not in found[name]


@pytest.mark.parametrize("name", SCRAPED)
def test_prometheus_finds_the_metrics_of_each_unit(name: str) -> None:
    unit = (DEPLOY / "systemd" / f"{name}.service").read_text()
    environment = dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE))

    assert metrics_port(name, environment) == SCRAPED[name]
    assert scrapes("prometheus.yml")[name]["static_configs"] == [{"targets": [f"127.0.0.1:{SCRAPED[name]}"]}]
    # The last that names a variable wins, and that is the operator's file.
    assert unit.index("Environment=") < unit.index("EnvironmentFile=")


def metrics_port(service: str, environment: dict[str, str]) -> int | None:
    """The port on which a service with these settings has its metrics."""
    if service == "smartlink-reverb":
        settings = ServerSettings(**{name.lower(): value for name, value in environment.items() if "METRICS" in name})
        return settings.reverb_metrics_port if settings.reverb_metrics_enabled else None
    own = PortalSettings(**{name.lower(): value for name, value in environment.items() if "METRICS" in name})
    return own.app_metrics_port if service == "smartlink-app" else own.worker_metrics_port


@pytest.mark.parametrize("file", ["prometheus.yml", "compose.prometheus.yml"])
def test_prometheus_accepts_the_configuration(file: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs Prometheus: make test-alerts")
    done = processes.run(
        [promtool, "check", "config", str(DEPLOY / "prometheus" / file)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
