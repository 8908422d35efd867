"""C1, O2 to O5, P2: `Records` and the procedures give the same answers, send the same requests, and leave the same items.

Histories of calls are generated, over every layout, and played twice: see `both_ways`.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency import (
    Claimed,
    CompositeKey,
    ConfigurationError,
    CustomPartition,
    HashBuckets,
    InProgress,
    Mismatch,
    RandomBuckets,
    Replay,
    Reshard,
    SimpleKey,
    Static,
    TimeBuckets,
    deadline,
)
from aioidempotency._concurrency import Once
from aioidempotency._core import model
from aioidempotency._core.freeing import Forgotten
from aioidempotency._core.model import Item, Lease, Location, Record, Route, SerializedResult
from aioidempotency._core.protocol import Claim
from aioidempotency._records import Records
from aioidempotency.partitioning.key_schemas import KeySchema
from aioidempotency.partitioning.strategy import Terms
from tests.core.playing import RENAMED, SIMPLE, stored
from tests.ownership.both_ways import SKEW, Answer, Incident, Line, Procedures, Table

RETENTION = 100.0
KEY = "shop#1234"
TERMS = Terms(retention=RETENTION, lease=60.0, clock_skew=SKEW)

LAYOUTS: dict[str, KeySchema] = {
    "simple": SimpleKey("id"),
    "static": CompositeKey("part", "sort", partitioning=Static("all")),
    "buckets": CompositeKey("part", "sort", partitioning=HashBuckets(4)),
    "custom": CompositeKey(
        "part", "sort", partitioning=CustomPartition(lambda key: f"new-{key[:4]}", lambda key: [f"old-{key[:4]}"])
    ),
    "random": CompositeKey("part", "sort", partitioning=RandomBuckets(4, choices=3)),
    "windows": CompositeKey("part", "sort", partitioning=TimeBuckets(60.0, buckets=2)),
    "prepare": CompositeKey("part", "sort", partitioning=Reshard(Static("all"), HashBuckets(4))),
    "cutover": CompositeKey("part", "sort", partitioning=Reshard(TimeBuckets(60.0), HashBuckets(4), "cutover")),
}


def route_in(layout: str) -> Route:
    """The locations of the one key. All attributes but those of the simple layout have names of their own."""
    schema = LAYOUTS[layout]
    attributes = SIMPLE.attributes if isinstance(schema, SimpleKey) else RENAMED.attributes
    return schema.bound(TERMS).route(schema.table("records", attributes), KEY)


# What others leave in a location


OWNERS = ("ann", "bob")
"""The owners of claims. One owner claims again where an earlier try of the call was lost."""


def _running(location: Location, now: float, owner: str | None) -> Item:
    return stored(
        location,
        owner=owner,
        fencing_token=None if owner is None else round(now * 1000) - 5000,
        in_progress_expiration=round(now * 1000) + 20_000,
        expiration=int(now) + 80,
        validation="print-1",
    )


def _without(role: str) -> Callable[[Location, float], Item]:
    return lambda location, now: {
        name: value for name, value in _running(location, now, "other").items() if name != location.table.names[role]
    }


def _finished(location: Location, now: float, **changes: Any) -> Item:
    attributes = {"status": "COMPLETED", "data": '"theirs"', "expiration": int(now) + 50, **changes}
    return stored(location, in_progress_expiration=round(now * 1000) - 1000, **attributes)


ITEMS: dict[str, Callable[[Location, float], Item | None]] = {
    "gone": lambda location, now: None,
    "running": lambda location, now: _running(location, now, "other"),
    "an owner's earlier try": lambda location, now: _running(location, now, "ann"),
    "over": lambda location, now: stored(location, in_progress_expiration=round(now * 1000) - 2000, validation="print-2"),
    "nearly over": lambda location, now: stored(location, in_progress_expiration=round(now * 1000) - 1000),
    "a larger token": lambda location, now: stored(location, in_progress_expiration=1, fencing_token=2**41),
    "expired": lambda location, now: stored(location, expiration=int(now) - 1),
    "finished": lambda location, now: _finished(location, now, validation="print-1", encoding="zlib", result_class="A"),
    "finished by an owner": lambda location, now: _finished(location, now, owner="ann"),
    "of Powertools, running": lambda location, now: _running(location, now, None),
    "of Powertools, without an end": lambda location, now: stored(
        location, owner=None, fencing_token=None, in_progress_expiration=None, expiration=int(now) + 30
    ),
    "of Powertools, finished": lambda location, now: _finished(location, now, owner=None, fencing_token=None),
    "vacant": lambda location, now: model.vacant(
        location, owner="somebody", fencing_token=7, expiration=int(now) + 70, freed_by="a host"
    ),
    "vacant and expired": lambda location, now: model.vacant(
        location, owner="somebody", fencing_token=7, expiration=int(now) - 70, freed_by=""
    ),
    "without a status": _without("status"),
    "without an expiration": _without("expiration"),
    "with a number too large": lambda location, now: {
        **_running(location, now, "other"), location.table.names["fencing_token"]: {"N": "1e40"}
    },
    "with a number that is a text": lambda location, now: {
        **_running(location, now, "other"), location.table.names["in_progress_expiration"]: {"S": "soon"}
    },
    "no record": lambda location, now: {**location.item, "size": {"N": "43"}},
}  # fmt: skip
"""Items by what they are, made for an instant."""


def writing(layout: str, kind: str, index: int) -> Callable[[Table], None]:
    """Have another program write an item of a kind, into one of the locations of the moment."""

    def write(table: Table) -> None:
        locations = route_in(layout).locations(table.now)
        location = locations[index % len(locations)]
        table.put(location, ITEMS[kind](location, table.now))

    return write


CONTESTS = [
    ("gone", "an owner's earlier try"),
    ("an owner's earlier try", "gone"),
    ("vacant", "vacant and expired"),
    ("an owner's earlier try", "an owner's earlier try"),
]
"""Two kinds of items that another program writes in turn."""


# Steps


@final
@dataclass(frozen=True, kw_only=True)
class Claiming:
    """One claim; `since` seconds have passed from its instant until the first request leaves."""

    what: Literal["claim"] = "claim"
    owner: str
    lease: float
    retention: float
    fingerprint: str | None
    read_first: bool
    label: str | None
    since: float
    in_deadline: bool
    incidents: tuple[Incident, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Finishing:
    """What an owner does with one of the leases granted so far."""

    what: Literal["complete", "renew", "release"]
    lease: int
    result: SerializedResult
    incidents: tuple[Incident, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """One call of `forget`."""

    what: Literal["forget"] = "forget"
    running: bool
    incidents: tuple[Incident, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Passing:
    """Time, or whoever sets the clock; and whoever writes past the protocol."""

    seconds: float
    write: Callable[[Table], None] | None


Step = Claiming | Finishing | Forgetting | Passing

DELAYS = (0.125, 1.0, 5.0, 5.125, 10.0, 10.125, 30.0, 30.125, 45.5, 61.0, 120.0, -0.125, -3.0, -70.0)
"""Seconds. Eighths have exact binary forms, so both ways compare equal instants."""


def draw(random: Random, layout: str) -> list[Step]:
    """Draw a history of a few calls."""
    return [_step(random, layout) for _ in range(random.randint(1, 10))]


def _step(random: Random, layout: str) -> Step:
    kind = random.choices(["claim", "finish", "forget", "pass"], [4, 4, 1, 2])[0]
    match kind:
        case "claim":
            return Claiming(
                owner=random.choice(OWNERS),
                lease=random.choice([10.0, 20.0, 60.0]),
                retention=random.choice([0.5, 20.0, RETENTION]),
                fingerprint=random.choice([None, "print-1", "print-2"]),
                read_first=random.random() < 0.3,
                label=random.choice([None, "a host", ""]),
                since=random.choice([0.0, 0.0, 0.0, 4.0, 5.0, 30.125, 61.0, -2.0]),
                in_deadline=random.random() < 0.2,
                incidents=_incidents(random, layout),
            )
        case "finish":
            return Finishing(
                what=random.choice(["complete", "complete", "renew", "release"]),
                lease=random.choice([0, 0, 0, 1, 2]),
                result=SerializedResult(
                    random.choice(["null", '{"id": 1}', "", "\u20ac"]),
                    random.choice([None, "zlib", "tombstone"]),
                    random.choice([None, "shop.Receipt"]),
                ),
                incidents=_incidents(random, layout),
            )
        case "forget":
            return Forgetting(running=random.random() < 0.5, incidents=_incidents(random, layout))
        case _:
            seconds = random.choice([0.0, *DELAYS])
            return Passing(seconds=seconds, write=random.choice([None, _written(random, layout)]))


def _incidents(random: Random, layout: str) -> tuple[Incident, ...]:
    shape = random.choices(["none", "some", "late", "contest"], [4, 4, 1, 1])[0]
    match shape:
        case "none":
            return ()
        case "some":
            return tuple(_incident(random, layout) for _ in range(random.randint(1, 4)))
        case "late":
            return tuple(Incident(kind="late", seconds=random.choice(DELAYS)) for _ in range(12))
        case _:
            # Another program writes before each operation, until the call gives up.
            items, seconds = random.choice(CONTESTS), random.choice([0.125, 1.0])
            return tuple(Incident(kind="late", seconds=seconds, write=writing(layout, each, 0)) for each in 6 * items)


def _incident(random: Random, layout: str) -> Incident:
    kind = random.choice(["fine", "fine", "late", "lost", "down", "repeated", "bare", "cancelled", "applied"])
    seconds = random.choice(DELAYS) if kind == "late" else 0.0
    write = _written(random, layout) if random.random() < 0.3 else None
    return Incident(kind=kind, seconds=seconds, write=write)  # type: ignore[arg-type] # one of them


def _written(random: Random, layout: str) -> Callable[[Table], None]:
    return writing(layout, random.choice(sorted(ITEMS)), random.randrange(6))


async def play(layout: str, steps: Sequence[Step]) -> set[tuple[str, str]]:
    """Take each step both ways, and compare everything after it. Tell which kinds of calls came to which answers."""
    seen: set[tuple[str, str]] = set()
    line, procedures = Line(Table()), Procedures(Table())
    leases: list[Lease] = []
    route = route_in(layout)
    for step in steps:
        if isinstance(step, Passing):
            for each in (line, procedures):
                each.table.now += step.seconds
                if step.write is not None:
                    step.write(each.table)
        elif leases or not isinstance(step, Finishing):
            for each in (line, procedures):
                each.table.prepare(step.incidents)
            answer = await _taken(step, line, procedures, route, leases)
            seen.add((step.what, _kind(answer)))
            if isinstance(answer, Claimed | Lease):
                leases.append(answer.lease if isinstance(answer, Claimed) else answer)
        for each in (line, procedures):
            each.table.prepare(())
        assert line.table.sent == procedures.table.sent, step
        assert line.table.items() == procedures.table.items(), step
        assert line.table.now == procedures.table.now, step
        assert line.events == procedures.events, step
        assert await line.read(route) == await procedures.read(route), step
    return seen


async def _taken(
    step: Claiming | Finishing | Forgetting, line: Line, procedures: Procedures, route: Route, leases: list[Lease]
) -> Answer:
    """Take one step both ways. Each call has a task of its own, because it may be cancelled."""
    now = line.table.now
    match step:
        case Claiming():
            attempt = Claim(
                route=route,
                owner=step.owner,
                now=now - step.since,
                lease=step.lease,
                retention=step.retention,
                clock_skew=SKEW,
                fingerprint=step.fingerprint,
                read_first=step.read_first,
                label=step.label,
            )
            with deadline(3600) if step.in_deadline else nullcontext():
                answer = await asyncio.create_task(line.claim(attempt))
            expected = await procedures.claim(attempt, in_deadline=step.in_deadline)
        case Finishing():
            lease = leases[-1 - step.lease % len(leases)]
            if step.what == "complete":
                answer = await asyncio.create_task(line.complete(lease, step.result))
                expected = await procedures.complete(lease, step.result)
            elif step.what == "renew":
                answer = await asyncio.create_task(line.renew(lease))
                expected = await procedures.renew(lease)
            else:
                answer = await asyncio.create_task(line.release(lease))
                expected = await procedures.release(lease)
        case Forgetting():
            attempt = Claim(
                route=route, owner="who forgets", now=now, lease=60.0, retention=RETENTION, clock_skew=SKEW, label="me"
            )
            answer = await asyncio.create_task(line.forget(attempt, running=step.running))
            expected = await procedures.forget(attempt, running=step.running)
    assert answer == expected, step
    return answer


def _kind(answer: Answer) -> str:
    """Name the kind of an answer."""
    if isinstance(answer, tuple):
        return f"{answer[0].__name__} {answer[3]}" if answer[0] is not ConfigurationError else "ConfigurationError"
    return answer if isinstance(answer, str) else type(answer).__name__


ANSWERS = {
    *((kind, "cancelled") for kind in ("claim", "forget", "complete", "renew", "release")),
    *((kind, "ConfigurationError") for kind in ("claim", "forget", "complete", "renew", "release")),
    *((kind, "StoreError no answer") for kind in ("claim", "forget", "complete", "renew", "release")),
    *((kind, "StoreError contended") for kind in ("claim", "forget", "complete", "renew")),
    *(("claim", kind.__name__) for kind in (Claimed, Replay, InProgress, Mismatch)),
    ("claim", "StoreError each answer came too late"),
    *(("forget", kind.__name__) for kind in (Forgotten, InProgress)),
    ("complete", "Record"),
    ("renew", "Lease"),
    ("release", "NoneType"),
    *((kind, "LeaseLostError another_owner") for kind in ("complete", "renew", "release")),
    *((kind, "LeaseLostError gone") for kind in ("complete", "renew")),
    *((kind, "LeaseLostError unanswered") for kind in ("complete", "renew")),
}
"""All that calls come to where locations depend on the instant; elsewhere nothing more."""


SEEDS = st.integers(0, 2**64 - 1)
"""Drawn as a whole: what hypothesis would draw call by call seldom comes to a late answer of a second try."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_calls_and_procedures_give_the_same_answers(layout: str, runner: asyncio.Runner) -> None:
    """C1, O2 to O5, P2: equal answers and errors, equal requests in the same order, equal items and events."""

    @settings(max_examples=60)
    @given(SEEDS)
    def alike(seed: int) -> None:
        runner.run(play(layout, draw(Random(seed), layout)))

    alike()


def test_the_histories_come_to_every_answer(runner: asyncio.Runner) -> None:
    """What is compared includes each decision and each error that there is."""
    seen: set[tuple[str, str]] = set()
    for seed in range(1000):
        seen |= runner.run(play("windows", draw(Random(seed), "windows")))
    assert not ANSWERS - seen


@pytest.mark.parametrize(("layout", "longest"), [("simple", 30.0), ("windows", 10.0)])
async def test_a_claim_that_is_answered_in_time_ends_at_once(
    layout: str, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C1: one request, and no look at the lease. White-box: the longer way would give the same answer, only later."""
    for seconds in (0.0, longest):
        line = Line(Table(incidents=[Incident(kind="late", seconds=seconds)]))
        attempt = Claim(
            route=route_in(layout), owner="ann", now=line.table.now, lease=60.0, retention=9.0, clock_skew=SKEW
        )
        with monkeypatch.context() as patch:
            patch.setattr(Records, "_relied_on", None)
            patch.setattr(Records, "run_unverified", None)
            answer = await line.claim(attempt)
            assert isinstance(answer, Claimed)
            assert isinstance(await line.complete(answer.lease, SerializedResult("1")), Record)
        assert len(line.table.sent) == 2


@pytest.mark.parametrize("read_first", [False, True])
async def test_a_first_claim_waits_for_the_check_of_the_layout(read_first: bool) -> None:
    """P5: nothing is sent before the check, and nothing at all if it fails; later claims ask for no check."""
    line = Line(Table())
    route = route_in("simple")
    attempt = Claim(
        route=route,
        owner="ann",
        now=line.table.now,
        lease=60.0,
        retention=9.0,
        clock_skew=SKEW,
        read_first=read_first,
    )
    checks: list[int] = []

    async def check() -> None:
        checks.append(len(line.table.sent))
        if len(checks) == 1:
            raise ConfigurationError("the table has another layout")

    line.records.opening = Once(check)
    assert _kind(await line.claim(attempt)) == "ConfigurationError"
    assert _kind(await line.claim(attempt)) == "Claimed"
    assert _kind(await line.claim(attempt)) == "Claimed"
    assert checks == [0, 0]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all examples."""
    with asyncio.Runner() as made:
        yield made
