"""Run where the names of compose.yml are known: registers, subscribes and writes through the proxy; prints what came."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import sys

import httpx2
from websockets.asyncio.client import connect


async def main(url: str, key: str) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    person = {"name": "Ana", "email": f"{secrets.token_hex(4)}@example.com", "password": secrets.token_hex(12)}
    async with httpx2.AsyncClient(base_url=url, verify=trusting, timeout=60) as client:
        registered = await client.post("/api/register", json=person)
        assert registered.status_code == 201, registered.text
        signed_in = await client.post("/api/login", json={name: person[name] for name in ("email", "password")})
        client.headers["authorization"] = f"Bearer {signed_in.json()['token']}"
        address = f"{url.replace('https', 'wss')}/app/{key}?protocol=7"
        async with asyncio.timeout(60), connect(address, ssl=trusting, origin=url) as socket:
            async for text in socket:
                frame = json.loads(text)
                if frame["event"] == "pusher:connection_established":
                    await socket.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": "chat"}}))
                elif frame["event"] == "pusher_internal:subscription_succeeded":
                    said = await client.post("/api/chat/messages", json={"message": "Hello from the image"})
                    assert said.status_code == 201, said.text
                elif frame["event"].endswith("MessageSent"):
                    sys.stdout.write(f"heard: {json.loads(frame['data'])['message']['message']}\n")
                    return


asyncio.run(main(*sys.argv[1:]))
