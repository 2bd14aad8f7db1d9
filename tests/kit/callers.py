"""Calls the API as several users beside their browsers; each signs in once."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

__all__ = ["Callers"]


class Callers:
    """`await call("ben", "POST", "/api/chat/messages", {...})`: what Ben is answered."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._tokens: dict[str, str] = {}

    async def __call__(self, who: str, method: str, path: str, body: Any = None) -> Any:
        return await asyncio.to_thread(self._call, who, method, path, body)

    async def register(self, who: str, name: str = "") -> int:
        """A new person `{who}@example.com` whose password is `password`; the id."""
        return await asyncio.to_thread(self._register, who, name or who.title())

    def _register(self, who: str, name: str) -> int:
        body = {"name": name, "email": f"{who}@example.com", "password": "password"}
        answer = self._ask("POST", "/api/register", body, {})
        self._tokens[who] = answer["token"]
        user_id: int = answer["user"]["id"]
        return user_id

    def _call(self, who: str, method: str, path: str, body: Any) -> Any:
        if who not in self._tokens:
            credentials = {"email": f"{who}@example.com", "password": "password"}
            self._tokens[who] = self._ask("POST", "/api/login", credentials, {})["token"]
        return self._ask(method, path, body, {"Authorization": f"Bearer {self._tokens[who]}"})

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} | headers
        with urllib.request.urlopen(
            urllib.request.Request(self._url + path, method=method, data=data, headers=sent), timeout=10
        ) as answer:
            text = answer.read()
        return json.loads(text) if text else None
