"""Checks this machine: ports, file descriptors, and the server's certificate."""

from __future__ import annotations

import errno
import os
import resource
import socket
import time
from pathlib import Path
from typing import Final

import httpx2

from smartlink.cli.doctor.finding import Finding, failed, fine, skipped, warning
from smartlink.portal.shared.settings import PortalSettings
from smartlink.protocol.addresses import netloc
from smartlink.server.core.health import CERTIFICATE_S
from smartlink.server.net.tls import ends_at
from smartlink.server.settings.config import ServerSettings

__all__ = ["CHECKS", "check_certificate", "check_descriptors", "check_ports"]

TIMEOUT_S = 3.0
KEPT = 128
"""Descriptors reserved for everything but clients' connections."""


def check_ports(server: ServerSettings, portal: PortalSettings | None) -> list[Finding]:
    """Check that the ports are free, or already served by SmartLink."""
    found = [_check_port("REVERB_SERVER_PORT", server.reverb_server_host, server.reverb_server_port)]
    return found if portal is None else [_check_port("APP_PORT", portal.app_host, portal.app_port), *found]


def check_descriptors(server: ServerSettings) -> Finding:
    """Check that a worker may open as many descriptors as it may have connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = server.reverb_app_max_connections + KEPT
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        return fine("descriptors", f"{hard} open files allowed, {wanted} needed")
    return warning(
        "descriptors",
        f"{hard} open files allowed, {wanted} needed for REVERB_APP_MAX_CONNECTIONS={wanted - KEPT}",
        f"set LimitNOFILE={wanted} in the systemd unit, ulimits in compose, or run: ulimit -Hn {wanted}",
    )


def check_certificate(server: ServerSettings) -> Finding:
    """Check that the certificate in the server's file is valid for two more weeks."""
    chain, key = server.reverb_server_tls_cert, server.reverb_server_tls_key
    if chain is None or key is None:
        return skipped("certificate", "not used: REVERB_SERVER_TLS_CERT is not set, a proxy may have one")
    fix = "renew it, then send the server SIGHUP: see docs/howto/runbook.md"
    try:
        left_s = ends_at(Path(chain), Path(key)) - time.time()
    except OSError as error:
        said = f"REVERB_SERVER_TLS_CERT={chain} cannot be used ({type(error).__name__})"
        return failed("certificate", said, "check both files")
    if left_s <= 0:
        return failed("certificate", f"{chain} has ended: browsers refuse it", fix)
    said = f"{chain} ends in {int(left_s / 86_400)} days"
    return fine("certificate", said) if left_s > CERTIFICATE_S else warning("certificate", said, fix)


def _check_port(variable: str, host: str, port: int) -> Finding:
    name = f"{variable} {port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            if _is_ours(host, port):
                return fine("ports", f"{name}: SmartLink answers there")
            return failed("ports", f"{name} is in use by another program", f"stop it, or change {variable}")
        return failed("ports", f"{name} on {host}: {os.strerror(error.errno or 0)}", f"set {variable} or its host")
    return fine("ports", f"{name} is free")


def _is_ours(host: str, port: int) -> bool:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    for scheme in ("http", "https"):
        try:
            # The certificate does not matter: this only asks who answers.
            with httpx2.Client(timeout=TIMEOUT_S, trust_env=False, verify=False) as client:
                told = client.get(f"{scheme}://{netloc(reachable, port)}/up").json()
        except (httpx2.HTTPError, ValueError):
            continue
        # A 503 counts too: a draining server, or a portal without its database, is still SmartLink.
        if isinstance(told, dict) and told.keys() & {"health", "status", "message"}:
            return True
    return False


CHECKS: Final = {"descriptors": check_descriptors, "certificate": check_certificate}
"""Checks of the server's settings on this machine, by name."""
