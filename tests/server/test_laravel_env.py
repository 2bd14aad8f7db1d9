"""Running in a Laravel application's folder, with the `.env` of its installer and Reverb's."""

from __future__ import annotations

from pathlib import Path

import pytest

from smartlink.broadcasting import BroadcastSettings
from smartlink.server.settings.config import ServerSettings

ENV = """
APP_NAME=Laravel
APP_KEY=base64:Fq1wT3pXy9J3yN1l6m2pW8sC1v0Xn4b5c6d7e8f9g0h=
DB_CONNECTION=mysql
BROADCAST_CONNECTION=reverb
REDIS_CLIENT=phpredis
REDIS_HOST=127.0.0.1
REDIS_PASSWORD=null
REDIS_PORT=6379

REVERB_APP_ID=372518
REVERB_APP_KEY=u3oxqx5mz1vsf4r8nqgp
REVERB_APP_SECRET=zh3jfajhqnqm8ysoq5pt
REVERB_HOST="localhost"
REVERB_PORT=8080
REVERB_SCHEME=http
REVERB_SERVER_HOST=0.0.0.0

VITE_REVERB_APP_KEY="${REVERB_APP_KEY}"
VITE_REVERB_HOST="${REVERB_HOST}"
VITE_REVERB_PORT="${REVERB_PORT}"
"""


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("REDIS_URL", "REDIS_PASSWORD", "REVERB_APP_SECRET", "REVERB_SERVER_HOST"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text(ENV)
    return tmp_path / ".env"


def test_the_server_serves_the_application_to_other_machines(env_file: Path) -> None:
    settings = ServerSettings(_env_file=env_file)

    settings.check_start()

    assert (settings.reverb_app_id, settings.reverb_app_key) == ("372518", "u3oxqx5mz1vsf4r8nqgp")
    assert settings.redis_address.password is None


def test_the_library_publishes_as_the_application_does(env_file: Path) -> None:
    settings = BroadcastSettings(_env_file=env_file)

    assert settings.driver == "reverb"
    assert settings.signing_key() == ("u3oxqx5mz1vsf4r8nqgp", "zh3jfajhqnqm8ysoq5pt")
    assert settings.redis_address == "redis://127.0.0.1:6379/0"
