"""What one execution takes, in calls of functions: counts that no other load on the machine changes.

A change that makes an execution dearer shows here, at the function that is called more often.
The bounds are what was counted, and a few percent more, for the changes of Python and botocore.
"""

import asyncio
import cProfile
import pstats
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, Final, Protocol

import pytest

from aioidempotency import AsyncIdempotencyStore
from bench.speed import bare, ours
from bench.speed.processes import Server, running

CALLS: Final = 400
AT_ONCE: Final = 64

ENCODER: Final = "<method 'encode' of 'msgspec.json.Encoder' objects>"


class Contestant(Protocol):
    """What makes the calls that are counted."""

    async def call(self, key: str) -> object: ...
    async def aclose(self) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


async def counted(contestant: Contestant, keys: Iterator[str], *, at_once: int = AT_ONCE) -> Counter[str]:
    """Count the calls of each function, by name, that one execution takes; `all` is their sum.

    Everything that is made once, clients and caches, was made in calls before.
    """

    async def work(keys: Iterator[str], share: int) -> None:
        for _ in range(share):
            await contestant.call(next(keys))

    async def all_calls() -> None:
        if at_once == 1:
            await work(keys, CALLS)
        else:
            await asyncio.gather(*(work(keys, CALLS // at_once) for _ in range(at_once)))

    await all_calls()
    profile = cProfile.Profile()
    profile.enable()
    await all_calls()
    profile.disable()
    calls: Counter[str] = Counter()
    for (_, _, name), (_, number, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined] # not in typeshed
        calls[name] += number
        calls["all"] += number
    return Counter({name: number / (CALLS // at_once * at_once) for name, number in calls.items()})


@asynccontextmanager
async def opened(make: Callable[[str], Awaitable[Contestant]], server: Server) -> AsyncIterator[Contestant]:
    contestant = await make(server.url)
    yield contestant
    await contestant.aclose()


def fresh(prefix: str) -> Iterator[str]:
    return (f"{prefix}-{number}" for number in count())


async def test_the_plain_path_adds_a_tenth_to_two_bare_calls(server: Server) -> None:
    """The client's share is what it is; ours is small beside it, and botocore serializes nothing but table names."""
    async with opened(bare.tuned, server) as contestant:
        theirs = await counted(contestant, fresh("bare"))
    async with opened(partial(ours.plain, transport="client"), server) as contestant:
        found = await counted(contestant, fresh("plain"))
    assert 1000 < found["all"] <= 1.05 * theirs["all"]
    assert found["add_auth"] == theirs["add_auth"] == 2
    assert found["create_task"] <= theirs["create_task"]
    assert found["_serialize_type_structure"] == 2 < theirs["_serialize_type_structure"]
    assert found[ENCODER] == 4, "item, result, key, and values: the rest is a template"


async def test_the_lean_transport_takes_few_calls(server: Server) -> None:
    """No task, no timer and nothing of botocore's core but the credentials; one signature for each request."""
    async with opened(partial(ours.plain, transport="lean"), server) as contestant:
        found = await counted(contestant, fresh("lean"))
    assert 200 < found["all"] <= 400
    assert found["written"] == found["request"] == 2, "each is made once and signed once"
    assert found["create_task"] <= 0.2, "those of the callers"
    assert found["call_later"] <= 0.05, "the sweep"
    assert found["add_auth"] == 0
    assert found["call_at"] <= 0.05, "the time limits"
    assert found[ENCODER] == 4


async def test_group_commit_shares_requests_and_what_they_take(server: Server) -> None:
    """Of 64 callers' operations 25 share a request, its signature and its task."""
    async with opened(bare.tuned, server) as contestant:
        theirs = await counted(contestant, fresh("unshared"))
    async with opened(partial(ours.group_commit, transport="client"), server) as contestant:
        found = await counted(contestant, fresh("shared"))
    assert found["all"] <= 0.105 * theirs["all"]
    assert 2 / 25 <= found["add_auth"] <= 0.12
    assert found["create_task"] <= 0.5


@pytest.mark.parametrize(
    ("options", "keys", "most"),
    [
        (
            {},
            fresh("memory"),
            {"all": 228, "urandom": 1, "digest": 1, "create_task": 0, "call_at": 0.1, "_refusal": 2},
        ),
        ({}, iter(lambda: "same", None), {"all": 231, "create_task": 0, "call_at": 0, "_refusal": 1}),
        ({"local_cache": 10}, iter(lambda: "same", None), {"all": 65, "create_task": 0, "call_at": 0, "_refusal": 0}),
    ],
    ids=["fresh", "duplicate", "duplicate of the local cache"],
)
async def test_an_execution_calls_no_more_than_it_needs(
    options: dict[str, Any], keys: Iterator[str], most: dict[str, float]
) -> None:
    """No task, no timer and no request that is not needed; one owner and one digest for each call."""
    contestant = ours.Decorated(AsyncIdempotencyStore.in_memory(**options))
    found = await counted(contestant, keys, at_once=1)
    assert {name: found[name] for name in most if found[name] > most[name]} == {}
    assert found["all"] > most["all"] / 2
    await contestant.aclose()
