"""Clients that miss nothing: they come back when they are sent away, and close their gaps, as the pages do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from kit.deployment import KEY, Deployment
from kit.waiting import LIMIT_S, eventually

__all__ = ["Reader", "as_ana"]


@asynccontextmanager
async def as_ana(deployed: Deployment) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the API through the proxy, signed in."""
    async with httpx2.AsyncClient(base_url=deployed.url, verify=deployed.trusting(), timeout=LIMIT_S) as api:
        login = await api.post("/api/login", json={"email": "ana@example.com", "password": "password"})
        api.headers["authorization"] = f"Bearer {login.json()['token']}"
        yield api


class Reader:
    """A client of the general room: comes back when it is sent away, and asks for what it missed, as the pages do."""

    def __init__(self, deployed: Deployment, api: httpx2.AsyncClient) -> None:
        self.texts: list[str] = []
        self.closes: list[int] = []
        self.is_subscribed = False
        self._seen: set[int] = set()
        self._api = api
        self._deployed = deployed
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._listen())
        await eventually(lambda: self.is_subscribed, what="a client is subscribed")
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._task is not None
        if self._task.done():
            self._task.result()
        self._task.cancel()
        await asyncio.wait([self._task])

    def has(self, text: str) -> bool:
        """Whether it was shown. Raises what ended the client, if something did."""
        assert self._task is not None
        if self._task.done():
            self._task.result()
        return text in self.texts

    def check(self, written: list[str]) -> None:
        """Of `written`, everything since the first message that it got: none missing, none twice, all in order."""
        texts = [text for text in self.texts if text in written]
        first = written.index(texts[0]) if texts else 0
        assert texts == written[first : first + len(texts)]

    async def _listen(self) -> None:
        address = f"wss://127.0.0.1:{self._deployed.port}/app/{KEY}?protocol=7"
        while True:
            try:
                async with connect(
                    address, ssl=self._deployed.trusting(), origin=self._deployed.url, ping_interval=None
                ) as socket:
                    async for text in socket:
                        await self._take(socket, json.loads(text))
                    self.closes.append(socket.close_code or 1006)
            except ConnectionClosed as ended:
                self.closes.append(ended.rcvd.code if ended.rcvd else 1006)
            except (InvalidMessage, InvalidStatus, OSError):
                await asyncio.sleep(0.1)  # as pusher-js, which waits longer

    async def _take(self, socket: Any, frame: dict[str, Any]) -> None:
        match frame["event"]:
            case "pusher:connection_established":
                await socket.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": "chat"}}))
            case "pusher:ping":
                await socket.send(json.dumps({"event": "pusher:pong", "data": {}}))
            case "pusher_internal:subscription_succeeded":
                if self._seen:
                    query = f"/api/events?channel=chat&after={max(self._seen)}"
                    missed = (await self._api.get(query)).raise_for_status().json()
                    assert missed["complete"]
                    for event in missed["events"]:
                        self._show(event["event"], event["data"])
                self.is_subscribed = True
            case name if not name.startswith("pusher"):
                self._show(name, json.loads(frame["data"]))

    def _show(self, name: str, data: dict[str, Any]) -> None:
        if name.endswith("MessageSent") and data["eventId"] not in self._seen:
            self._seen.add(data["eventId"])
            self.texts.append(data["message"]["message"])
