"""Signatures of API calls over the path as sent, plain or escaped, and over no other path."""

from __future__ import annotations

import time
from urllib.parse import quote

import httpx2
import pytest

from kit.client import connected
from kit.realtime import KEY, SECRET
from smartlink.protocol.signing import body_md5, sign_request
from smartlink.server.run.lifecycle import RealtimeServer

BODY = b"{}"


async def terminate(server: RealtimeServer, signed_as: str, sent_as: str) -> int:
    """The status of a call whose path names one user when it is signed, and perhaps another when it is sent."""
    path = "/apps/1001/users/{}/terminate_connections"
    params = {"auth_key": KEY, "auth_timestamp": str(int(time.time())), "auth_version": "1.0"}
    params["body_md5"] = body_md5(BODY)
    params["auth_signature"] = sign_request(SECRET, "POST", path.format(signed_as), params.items())
    query = "&".join(f"{name}={value}" for name, value in params.items())
    url = httpx2.URL(f"http://127.0.0.1:{server.port}").copy_with(
        raw_path=f"{path.format(sent_as)}?{query}".encode("ascii")
    )
    async with httpx2.AsyncClient(verify=False, trust_env=False, timeout=10) as client:
        return (await client.post(url, content=BODY)).status_code


@pytest.mark.parametrize(
    "user_id", ["auth0|5", "a b", "žluť", "me@example.com", "a:b;c,d=e", "o'neil(1)!*", "50%", "~._-"]
)
async def test_a_path_may_be_signed_plain_or_escaped(server: RealtimeServer, user_id: str) -> None:
    strictly = quote(user_id, safe="")
    for sent_as in {strictly, quote(user_id, safe="!*'()"), quote(user_id, safe="!$&'()*+,;=:@")}:
        for signed_as in {user_id, strictly, sent_as}:
            async with connected(server.port) as client:
                await client.sign_in(user_id)

                assert await terminate(server, signed_as, sent_as) == 200, (signed_as, sent_as)
                assert (await client.closed()).code == 4009


@pytest.mark.parametrize(
    ("signed_as", "sent_as"),
    [
        ("5", "6"),
        ("a|5", "a%7C6"),
        ("a%7C5", "a%257C5"),
        ("a%257C5", "a%7C5"),
        ("a|5", "a%257C5"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%2fb"),
        ("a%0Ab", "a%0ab"),
        ("a\nb", "a%0Ab"),
        ("A%7C5", "a%7C5"),
        ("a+5", "a%205"),
        ("a 5", "a+5"),
    ],
)
async def test_a_signature_of_one_path_is_invalid_for_another(
    server: RealtimeServer, signed_as: str, sent_as: str
) -> None:
    assert await terminate(server, signed_as, sent_as) == 401
