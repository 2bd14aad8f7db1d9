"""PostgreSQL answers every list from indexes, with 100,000 rows in each table."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing

import pytest

from kit.filled_database import BIG, asked, fill, plan
from kit.portal import World
from kit.postgres import fresh_database

ROWS = 100_000
USER = [
    "/api/chat/messages", "/api/chat/messages?before=50000", "/api/chat/messages?after=50000",
    "/api/chat/messages/private/{peer}", "/api/chat/conversations", "/api/chat/unread", "/api/chat/search?q=word77",
    "/api/chat/users/online", "/api/notifications", "/api/notifications?unread=1", "/api/notifications?before=50000",
    "/api/campaigns", "/api/campaigns?status=active", "/api/campaigns/{campaign}/activity", "/api/wallet",
    "/api/wallet/transactions", "/api/wallet/transactions?type=withdrawal", "/api/tokens",
    "/api/events?channel=private-user.{id}&after=0", "/api/events?channel=chat&after=90000",
]  # fmt: skip
ADMIN = [
    "/api/admin/users", "/api/admin/users?before=50000", "/api/admin/events", "/api/admin/events?channel=chat",
    "/api/admin/messages/{general}/versions", "/api/admin/failed-jobs", "/api/admin/audit", "/api/campaigns", "/api/campaigns?status=active",
]  # fmt: skip
SCAN = re.compile(rf"Seq Scan on ({'|'.join(BIG)})\b")


@pytest.mark.timeout(600)
async def test_no_list_scans_a_table(postgres_url: str, postgres_template: str) -> None:
    with fresh_database(postgres_url, postgres_template) as url:
        async with aclosing(World(url)) as world:
            ana, root = await world.person("Ana"), await world.person("Root", is_admin=True)
            await asyncio.to_thread(fill, url, ana.id, ROWS)
            peer = (await world.rows("SELECT user_id FROM chat_messages WHERE recipient_id = :a LIMIT 1", a=ana.id))[0][
                0
            ]
            general = (await world.rows("SELECT min(id) FROM chat_messages WHERE recipient_id IS NULL"))[0][0]
            campaign = (await world.rows("SELECT id FROM campaigns WHERE user_id = :a LIMIT 1", a=ana.id))[0][0]
            scans = []
            for person, paths in ((ana, USER), (root, ADMIN)):
                for path in paths:
                    async with asked(world) as statements:
                        asks = path.format(peer=peer, campaign=campaign, id=ana.id, general=general)
                        answer = await person.get(asks)
                    assert answer.status_code == 200, (path, answer.text)
                    assert statements
                    for statement, parameters in statements:
                        found = await plan(world, statement, parameters)
                        if SCAN.search(found):
                            scans.append(f"{path}\n{statement}\n{found}")

            assert not scans, "\n\n".join(scans)
