"""The control socket's folder must belong to its user."""

from __future__ import annotations

from pathlib import Path

import pytest

from smartlink.server.run.control import ControlSocket, NotRunning, ask, control_path
from smartlink.server.settings.config import ServerSettings


def place(folder: Path) -> Path:
    """Where the control socket of a server with this runtime folder should be."""
    return control_path(ServerSettings(_env_file=None, reverb_server_runtime_dir=str(folder)), 8080)


async def start(path: Path) -> None:
    """Start a control socket, and stop it."""
    control = ControlSocket(path, {})
    await control.start()
    await control.stop()


async def test_a_symlink_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(ours)
    path = place(tmp_path / "run")
    path.write_text("something else")

    await start(path)

    assert path.read_text() == "something else"


async def test_a_folder_writable_by_others_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)

    path = place(tmp_path / "run")

    await start(path)

    assert not path.exists()
    with pytest.raises(NotRunning):
        ask(path, "restart", 1.0)
