"""Reaches the operator API of a running server: over its Unix socket here, or at a URL."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from smartlink.cli.failures import fail, settings_errors

if TYPE_CHECKING:
    import httpx2

__all__ = ["OperatorApi", "printable", "reach"]

TIMEOUT_S = 30.0
SILENT_S = 45.0
"""Longest silence of a console; the server writes every ten seconds."""


class OperatorApi:
    """Calls of the API. Ends the command with a message when the server cannot be reached or refuses."""

    def __init__(self, client: httpx2.Client, where: str) -> None:
        self._client = client
        self._where = where

    def get(self, path: str, **query: str | None) -> Any:
        """Return what a call answers."""
        with self._faults():
            answer = self._client.get(f"/api/{path}", params=_given(query))
        return self._checked(answer).json()

    def lines(self, **query: str | None) -> Iterator[dict[str, Any]]:
        """Yield the batches of a console until the server ends."""
        with (
            self._faults(),
            self._client.stream("GET", "/api/console", params=_given(query), timeout=SILENT_S) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
            self._checked(answer)
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))
                elif line.startswith(": watching"):
                    yield {"watching": True, "entries": [], "dropped": 0}
        fail(f"The server at {self._where} ended the connection")

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except httpx2.ConnectError:
            fail(f"No realtime server answers operators at {self._where}. Start it: smartlink reverb start", 3)
        except httpx2.HTTPError as error:
            fail(f"The server at {self._where} ended the connection ({type(error).__name__})")

    def _checked(self, answer: httpx2.Response) -> httpx2.Response:
        if answer.status_code != 200:
            try:
                reason = str(answer.json()["error"])
            except (ValueError, KeyError, TypeError):
                reason = f"it answers {answer.status_code}; is this the operators' port?"
            fail(f"{self._where}: {printable(reason)}")
        return answer


def reach(url: str | None) -> OperatorApi:
    """Return the API at `url`, with REVERB_OPERATOR_TOKEN, or of the server on this machine."""
    import httpx2

    from smartlink.server.run.control import operators_path
    from smartlink.server.settings.config import ServerSettings

    with settings_errors():
        settings = ServerSettings()
    if url is None:
        path = operators_path(settings, settings.reverb_server_port)
        transport = httpx2.HTTPTransport(uds=str(path))
        return OperatorApi(httpx2.Client(base_url="http://server", transport=transport, timeout=TIMEOUT_S), str(path))
    token = settings.operator_token
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    client = httpx2.Client(
        base_url=url.rstrip("/"), headers=headers, timeout=TIMEOUT_S, trust_env=False,
        verify=httpx2.create_ssl_context(),
    )  # fmt: skip
    return OperatorApi(client, url)


def printable(text: str) -> str:
    """Replace what could steer a terminal, or reverse the text that follows it."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def _given(query: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in query.items() if value}
