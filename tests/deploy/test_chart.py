"""The Helm chart, rendered by helm itself: what Kubernetes takes, and the rules that its services keep."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit import processes
from smartlink.broadcasting import BroadcastSettings
from smartlink.portal.shared.settings import PortalSettings, check_start
from smartlink.server.settings.config import ServerSettings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "smartlink"
TOOLS = ROOT / "var" / "tools"
KUBERNETES = "1.31.0"
EVERYTHING = (
    "url=https://chat.example.com", "secrets.existing=of-ours", "app.autoscaling.enabled=true", "ingress.enabled=true",
    "ingress.tlsSecret=tls", "networkPolicy.enabled=true", "serviceMonitor.enabled=true",
    "prometheusRule.enabled=true",
)  # fmt: skip
SECRETS = {
    "DATABASE_URL": "postgresql://smartlink:a-password@db/smartlink",
    "REDIS_URL": "redis://:a-password@redis:6379/0",
    "REVERB_APP_ID": "4711",
    "REVERB_APP_KEY": "key-of-ours",
    "REVERB_APP_SECRET": "a-secret-of-ours-that-is-long-enough-for-all",
}
GRACE_BEYOND_THE_DRAIN_S = 10
"""For clients that do not answer, and pending calls: docs/howto/operate.md."""


def tool(*paths: str) -> str:
    found = next((path for path in paths if shutil.which(path)), None)
    if found is None:
        pytest.skip(f"{Path(paths[0]).name} is not here: make test-chart installs it")
    return found


def helm(*words: str) -> Any:
    command = [tool(str(TOOLS / "helm"), "helm"), *words]
    return processes.run(command, capture_output=True, text=True)


def values(*sets: str) -> list[str]:
    return ["--kube-version", KUBERNETES, *(word for each in sets for word in ("--set", each))]


def rendered(*sets: str) -> list[dict[str, Any]]:
    done = helm("template", "chat", str(CHART), "--namespace", "realtime", *values(*sets))
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """By the service that they are for."""
    return {
        document["metadata"]["labels"]["app.kubernetes.io/component"]: document
        for document in documents
        if document["kind"] == kind
    }


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The template of each service's pods."""
    return {
        service: document["spec"]["template"]
        for kind in ("Deployment", "Job")
        for service, document in of_kind(documents, kind).items()
    }


def is_selected(selector: dict[str, str], pod: dict[str, Any]) -> bool:
    return selector.items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("scaler", ["", "hpa", "keda"])
def test_helm_finds_nothing_to_complain_about(scaler: str) -> None:
    done = helm("lint", "--strict", str(CHART), *values(*EVERYTHING, f"realtime.autoscaling.kind={scaler}"))

    assert done.returncode == 0, done.stdout + done.stderr


def test_kubernetes_takes_every_document(tmp_path: Path) -> None:
    validate = tool(str(TOOLS / "kubernetes-validate" / "bin" / "kubernetes-validate"), "kubernetes-validate")
    documents = rendered(*EVERYTHING, "realtime.autoscaling.kind=hpa")
    # An operator brings the schemas of these.
    known = [document for document in documents if document["kind"] not in ("ServiceMonitor", "PrometheusRule")]
    assert len(known) == len(documents) - 4
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump_all(known))

    done = processes.run([validate, "--strict", "-k", KUBERNETES, str(file)], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed for ") == len(known)


def test_the_services_are_those_of_the_compose_file() -> None:
    arguments = {name: pod["spec"]["containers"][0]["args"] for name, pod in pods(rendered(*EVERYTHING)).items()}

    assert arguments == {
        "realtime": ["reverb", "start"],
        "app": ["app", "start"],
        "worker": ["worker", "start"],
        "migration": ["db", "upgrade"],
    }


def test_each_service_is_kept_in() -> None:
    for pod in pods(rendered(*EVERYTHING)).values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


@pytest.mark.parametrize("drain_s", [0, 30, 120])
def test_the_grace_is_longer_than_pause_and_drain(drain_s: int) -> None:
    found = pods(rendered(*EVERYTHING, f"realtime.drainSeconds={drain_s}"))
    realtime = found["realtime"]["spec"]
    (container,) = realtime["containers"]
    pause_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drains_s = float(environment(found["realtime"])["REVERB_SERVER_DRAIN_SECONDS"])

    assert drains_s == drain_s
    assert realtime["terminationGracePeriodSeconds"] >= pause_s + drain_s + GRACE_BEYOND_THE_DRAIN_S
    readiness = container["readinessProbe"]
    assert pause_s >= readiness["periodSeconds"]


def environment(pod: dict[str, Any]) -> dict[str, str]:
    """As the kubelet makes it: $(NAME) refers to what stands before it."""
    found: dict[str, str] = {}
    for variable in pod["spec"]["containers"][0]["env"]:
        given = variable.get("value")
        if given is None:
            reference = variable["valueFrom"]["secretKeyRef"]
            assert reference["name"] == "of-ours"
            if reference["key"] not in SECRETS and reference.get("optional"):
                continue
            given = SECRETS[reference["key"]]
        found[variable["name"]] = re.sub(r"\$\(([A-Z_]+)\)", lambda name: found.get(name[1], name[0]), given)
    return found


@pytest.mark.parametrize("service", ["realtime", "app", "worker", "migration"])
def test_the_settings_are_such_as_start(service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = environment(pods(rendered(*EVERYTHING))[service])
    monkeypatch.chdir(tmp_path)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    server, portal = ServerSettings(), PortalSettings()
    server.check_start()
    check_start(portal)

    assert portal.realtime["host"] == "chat.example.com"
    assert (portal.realtime["port"], portal.realtime["scheme"]) == (443, "https")
    if service == "realtime":
        assert server.reverb_webhook_queue == SECRETS["REDIS_URL"]
    known = {name.upper() for name in ServerSettings.model_fields}
    for settings in (PortalSettings, BroadcastSettings):
        for field in settings.model_fields.values():
            known |= {str(choice) for choice in getattr(field.validation_alias, "choices", ())}
    assert set(given) - known == set()


def test_a_services_own_settings_win() -> None:
    sets = (
        "settings.LOG_LEVEL=info",
        "realtime.settings.LOG_LEVEL=debug",
        "realtime.settings.REVERB_METRICS_PORT=9700",
    )
    found = pods(rendered(*EVERYTHING, *sets))

    assert environment(found["app"])["LOG_LEVEL"] == "info"
    assert environment(found["realtime"])["LOG_LEVEL"] == "debug"
    assert environment(found["realtime"])["REVERB_METRICS_PORT"] == "9700"


def test_the_migration_comes_before_the_pods_and_after_its_secrets() -> None:
    given = [f"secrets.values.{name}={value.replace(',', '.')}" for name, value in SECRETS.items()]
    documents = rendered("url=https://chat.example.com", *given, "networkPolicy.enabled=true")
    hooks = {
        document["kind"]: int(document["metadata"]["annotations"]["helm.sh/hook-weight"])
        for document in documents
        if "helm.sh/hook" in document["metadata"].get("annotations", {})
    }

    assert hooks.keys() == {"Secret", "NetworkPolicy", "Job"}
    assert hooks["Secret"] < hooks["NetworkPolicy"] < hooks["Job"]
    job = of_kind(documents, "Job")["migration"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_secrets_stand_in_a_secret_alone() -> None:
    given = [f"secrets.values.{name}={value}" for name, value in SECRETS.items()]
    documents = rendered("url=https://chat.example.com", *given)

    assert of_kind(documents, "Secret")["secrets"]["stringData"] == SECRETS
    others = yaml.safe_dump_all(document for document in documents if document["kind"] != "Secret")
    for name in ("DATABASE_URL", "REDIS_URL", "REVERB_APP_SECRET"):
        assert SECRETS[name] not in others


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_a_missing_secret_is_asked_for(missing: str) -> None:
    given = [f"secrets.values.{name}={value}" for name, value in SECRETS.items() if name != missing]

    done = helm("template", "chat", str(CHART), *values("url=https://chat.example.com", *given))

    assert done.returncode != 0
    assert f"secrets.values.{missing}" in done.stderr


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("url=http://chat.example.com", "url"),
        ("url=", "url"),
        ("image.digest=latest", "digest"),
        ("realtime.autoscaling.kind=vpa", "kind"),
        ("realtime.replicas=0", "replicas"),
    ],
)
def test_wrong_values_are_refused_by_name(wrong: str, named: str) -> None:
    done = helm("template", "chat", str(CHART), *values(*EVERYTHING, wrong))

    assert done.returncode != 0
    assert named in done.stderr


def test_an_image_is_pinned_by_its_digest() -> None:
    digest = "sha256:" + "0123456789abcdef" * 4

    images = {
        pod["spec"]["containers"][0]["image"]
        for pod in pods(
            rendered(*EVERYTHING, "image.repository=registry.example.com/chat", f"image.digest={digest}")
        ).values()
    }

    assert images == {f"registry.example.com/chat@{digest}"}


def test_nodes_scale_by_connections_and_go_one_by_one() -> None:
    documents = rendered(*EVERYTHING, "realtime.autoscaling.kind=hpa", "realtime.autoscaling.connectionsPerPod=4000")
    scaler = of_kind(documents, "HorizontalPodAutoscaler")["realtime"]["spec"]
    deployment = of_kind(documents, "Deployment")["realtime"]

    assert "replicas" not in deployment["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    connections, cpu = scaler["metrics"]
    assert connections["pods"] == {
        "metric": {"name": "smartlink_connections"}, "target": {"type": "AverageValue", "averageValue": "4000"},
    }  # fmt: skip
    assert cpu["resource"]["name"] == "cpu"
    (down,) = scaler["behavior"]["scaleDown"]["policies"]
    grace_s = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert (down["type"], down["value"]) == ("Pods", 1)
    assert down["periodSeconds"] >= grace_s


def test_keda_asks_for_the_sum_of_the_same_metric() -> None:
    documents = rendered(*EVERYTHING, "realtime.autoscaling.kind=keda")
    scaled = of_kind(documents, "ScaledObject")["realtime"]["spec"]
    service = of_kind(documents, "Service")["realtime"]["metadata"]["name"]

    assert scaled["scaleTargetRef"] == {"name": of_kind(documents, "Deployment")["realtime"]["metadata"]["name"]}
    assert scaled["triggers"][0]["metadata"]["query"] == (
        f'sum(smartlink_connections{{namespace="realtime",service="{service}"}})'
    )
    assert "realtime" not in of_kind(documents, "HorizontalPodAutoscaler")


def test_what_selects_pods_finds_them() -> None:
    documents = rendered(*EVERYTHING)
    found = pods(documents)
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "Deployment"):
        for service, document in of_kind(documents, kind).items():
            spec = document["spec"]
            selector = spec.get("selector", spec.get("podSelector"))
            target = of_kind(documents, "Service") if kind == "ServiceMonitor" else found
            wanted = selector.get("matchLabels", selector)
            assert [name for name, pod in target.items() if is_selected(wanted, pod)] == [service], (kind, service)
    for service, document in of_kind(documents, "Service").items():
        ports = {port["name"] for port in found[service]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in document["spec"]["ports"]} <= ports
    for constraint in found["realtime"]["spec"]["topologySpreadConstraints"]:
        assert is_selected(constraint["labelSelector"]["matchLabels"], found["realtime"])


def test_the_network_lets_through_what_the_services_say_to_each_other() -> None:
    documents = rendered(*EVERYTHING)
    policies, found = of_kind(documents, "NetworkPolicy"), pods(documents)

    def may(caller: str, called: str, port: int) -> bool:
        def names(rules: list[dict[str, Any]], key: str, other: str) -> bool:
            return any(
                is_selected(peer["podSelector"]["matchLabels"], found[other])
                for rule in rules
                if port in [each["port"] for each in rule["ports"]]
                for peer in rule.get(key, [])
                if "podSelector" in peer
            )

        leaves = names(policies[caller]["spec"]["egress"], "to", called)
        return leaves and names(policies[called]["spec"]["ingress"], "from", caller)

    assert may("app", "realtime", 8080)
    assert may("worker", "realtime", 8080)
    assert may("realtime", "app", 8000)
    assert not may("realtime", "worker", 8080)
    assert [rule["ports"] for rule in policies["worker"]["spec"]["ingress"]] == [[{"port": 9603, "protocol": "TCP"}]]
    assert policies["migration"]["spec"].get("ingress") is None


@pytest.mark.parametrize(
    ("service", "host", "port"),
    [
        ("realtime", "REVERB_METRICS_HOST", "REVERB_METRICS_PORT"),
        ("app", "APP_METRICS_HOST", "APP_METRICS_PORT"),
        ("worker", "APP_METRICS_HOST", "WORKER_METRICS_PORT"),
    ],
)
def test_the_metrics_of_each_service_are_where_they_are_scraped(service: str, host: str, port: str) -> None:
    documents = rendered(*EVERYTHING)
    (container,) = pods(documents)[service]["spec"]["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    number = int(environment[port])

    assert environment[host] == "0.0.0.0"
    assert {"name": "metrics", "containerPort": number} in container["ports"]
    (endpoint,) = of_kind(documents, "ServiceMonitor")[service]["spec"]["endpoints"]
    offered = {each["name"]: each for each in of_kind(documents, "Service")[service]["spec"]["ports"]}
    assert offered[endpoint["port"]]["targetPort"] == "metrics"
    ingress = of_kind(documents, "NetworkPolicy")[service]["spec"]["ingress"]
    assert {"port": number, "protocol": "TCP"} in [each for rule in ingress for each in rule["ports"]]


def test_the_alerts_are_those_of_the_rules_and_link_to_the_runbook_that_is_named() -> None:
    documents = rendered(*EVERYTHING, "prometheusRule.runbook=https://wiki.example.com/smartlink")
    groups = of_kind(documents, "PrometheusRule")["rules"]["spec"]["groups"]
    found = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    given = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())["groups"]

    assert list(found) == [rule["alert"] for group in given for rule in group["rules"]]
    for name, rule in found.items():
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example.com/smartlink#{name.lower()}"
    (jobs,) = re.findall(r'job=~"(.+)"', found["SmartLinkTargetDown"]["expr"])
    services = of_kind(documents, "Service")
    assert services.keys() == {"realtime", "app", "worker"}
    assert all(re.fullmatch(jobs, service["metadata"]["name"]) for service in services.values())


def test_the_ingress_sends_sockets_to_the_realtime_server() -> None:
    documents = rendered(*EVERYTHING)
    (rule,) = of_kind(documents, "Ingress")["ingress"]["spec"]["rules"]
    services = {service: document["metadata"]["name"] for service, document in of_kind(documents, "Service").items()}

    assert {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {
        "/app": services["realtime"],
        "/pusher/app": services["realtime"],
        "/s": services["realtime"],
        "/": services["app"],
    }
