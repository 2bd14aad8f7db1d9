"""`serve` with few descriptors: its parts have shares, so load on one does not affect the others, and it is logged."""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from pathlib import Path

import pytest

from kit import serve
from kit.serve import SMARTLINK, Smartlink
from kit.waiting import LIMIT_S


def up(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/up", timeout=LIMIT_S) as answer:
        return int(answer.status)


def test_a_crowd_at_the_portal_takes_no_descriptors_from_the_realtime_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_few = tmp_path / "smartlink"
    with_few.write_text(f'#!/bin/sh\nulimit -n 256\nexec {SMARTLINK} "$@"\n')
    with_few.chmod(0o700)
    monkeypatch.setattr(serve, "SMARTLINK", str(with_few))
    smartlink = Smartlink(tmp_path)
    smartlink.start(2 * LIMIT_S)
    with contextlib.ExitStack() as held:
        held.callback(smartlink.stop)

        # More than the process has.
        for _ in range(300):
            held.enter_context(socket.create_connection(("127.0.0.1", smartlink.app_port)))

        assert up(smartlink.realtime_port) == 200
        assert up(smartlink.app_port) == 200
        assert "refusing connections: all 48 connections are in use" in smartlink.log.read_text()
