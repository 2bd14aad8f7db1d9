"""The control socket lies where only its user could have put it."""

from __future__ import annotations

from pathlib import Path

import pytest

from smartlink.server.config import ServerSettings
from smartlink.server.control import Control, NotRunning, ask, control_path


async def start(folder: Path) -> Path:
    """Start a control socket below `folder`; returns where it should be."""
    settings = ServerSettings(_env_file=None, reverb_server_runtime_dir=str(folder))
    path = control_path(settings, 8080)
    control = Control(path, {})
    await control.start()
    await control.stop()
    return path


async def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o700)
    (ours / "reverb-127.0.0.1-8080.sock").write_text("something else")
    (tmp_path / "run").symlink_to(ours)

    path = await start(tmp_path / "run")

    assert path.read_text() == "something else"


async def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)

    path = await start(tmp_path / "run")

    assert not path.exists()
    with pytest.raises(NotRunning):
        ask(path, "restart", 1.0)
