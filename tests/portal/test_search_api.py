"""Searching messages by words, limited to those the user may see."""

from __future__ import annotations

import pytest

from kit.portal import Person, World


async def found(person: Person, q: str) -> list[str]:
    answer = await person.client.get("/api/chat/search", params={"q": q})
    assert answer.status_code == 200, answer.text
    return [message["message"] for message in answer.json()]


@pytest.fixture
async def talk(world: World, ana: Person, ben: Person) -> World:
    for text in ("Good morning everybody", "The morning train is late", "Größe und Straße", "日本語のメッセージ"):
        await ana.post("/api/chat/messages", {"message": text})
    await world.direct_message(ana, ben, "A secret morning meeting")
    return world


async def test_search_matches_words_and_their_prefixes_newest_first(
    talk: World, ana: Person, ben: Person, eve: Person
) -> None:
    assert await found(ana, "morning") == [
        "A secret morning meeting", "The morning train is late", "Good morning everybody",
    ]  # fmt: skip
    assert await found(ben, "MORN meet") == ["A secret morning meeting"]
    assert await found(eve, "morning") == ["The morning train is late", "Good morning everybody"]
    assert await found(eve, "secret") == []
    assert await found(ana, "größe") == ["Größe und Straße"]
    assert await found(ana, "orning") == []


async def test_a_search_result_names_its_recipient(talk: World, ana: Person, ben: Person) -> None:
    [direct] = (await ana.get("/api/chat/search?q=secret")).json()
    [general] = (await ana.get("/api/chat/search?q=train")).json()

    assert direct["recipient"] == {"id": ben.id, "name": "Ben"}
    assert general["recipient"] is None
    assert set(direct) == set(general)


@pytest.mark.parametrize(
    "q", ['"', "'", "%", "*", "a OR b", "a AND NOT b", "NEAR(a b)", "-train", "message:train", "x' OR 1=1--", "&|!():*",
          "\\", "a" * 200, "__", "🙂", "^train", "{train}"],
)  # fmt: skip
async def test_search_syntax_is_not_interpreted(talk: World, ana: Person, q: str) -> None:
    await found(ana, q)


@pytest.mark.parametrize("q", ["", "a" * 201, "a\u0000b"])
async def test_empty_and_too_long_searches_are_refused(ana: Person, q: str) -> None:
    assert (await ana.client.get("/api/chat/search", params={"q": q})).status_code == 422


async def test_searching_requires_a_sign_in(world: World) -> None:
    assert (await world.client().get("/api/chat/search?q=a")).status_code == 401
