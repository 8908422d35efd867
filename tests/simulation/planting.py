"""Means to plant a fault: the library's own code with other arguments, or with other operations."""

from collections.abc import Callable, Generator
from types import ModuleType
from typing import Any

import pytest

from aioidempotency._core import conditions, protocol
from aioidempotency._core.conditions import HeldBy, Requirement
from aioidempotency._core.operations import Get
from aioidempotency._core.protocol import Claim
from aioidempotency._records import Records
from tests.support.values import replace

ANYTHING = HeldBy("anything goes")
"""The condition of a write that should have one and has not."""

Plant = Callable[[pytest.MonkeyPatch], None]
Change = Callable[[Any], Any]


def requirements(patch: pytest.MonkeyPatch, change: Callable[[Any, tuple[Requirement, ...]], Any]) -> None:
    """Change what a condition requires."""
    real = conditions.requirements
    patch.setattr(conditions, "requirements", lambda condition, table: change(condition, real(condition, table)))


def without(*roles: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Have `HeldBy` not look at attributes."""

    def change(condition: Any, required: tuple[Requirement, ...]) -> tuple[Requirement, ...]:
        return tuple(each for each in required if not (isinstance(condition, HeldBy) and each[0] in roles))

    return lambda patch: requirements(patch, change)


FIRST_STEPS = {"claim": ("first_put", "claim_refused"), "complete": ("first_update", "completion_refused")}
"""The procedures whose first operation is made, and sent, outside of a generator: by which function, and what follows."""


def rewriting(procedure: str, change: Change, *, module: ModuleType = protocol) -> Callable[[pytest.MonkeyPatch], None]:
    """Change the operations that a procedure asks for."""
    first, following = FIRST_STEPS.get(procedure, (None, None))

    def plant(patch: pytest.MonkeyPatch) -> None:
        for name in filter(None, (procedure, following)):
            real = getattr(module, name)
            patch.setattr(module, name, _changing(real, change))
        if first is not None:
            patch.setattr(module, first, _changing_first(getattr(module, first), change))
        requirements(patch, lambda condition, required: () if condition is ANYTHING else required)

    return plant


def _changing(real: Callable[..., Any], change: Change) -> Callable[..., Any]:
    return lambda *args, **kwargs: changed(real(*args, **kwargs), change)


def _changing_first(real: Callable[..., Any], change: Change) -> Callable[..., Any]:
    def first(*args: Any, **kwargs: Any) -> Any:
        granted, operation = real(*args, **kwargs)
        return granted, change(operation)

    return first


def changed(procedure: Generator[Any, Any, Any], change: Change) -> Generator[Any, Any, Any]:
    operation = next(procedure)
    while True:
        reply = yield change(operation)
        try:
            operation = procedure.send(reply)
        except StopIteration as end:
            return end.value


def unconditional(operation: Any) -> Any:
    return operation if isinstance(operation, Get) else replace(operation, condition=ANYTHING)


def judging(change: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Change how a record is judged: `change` is given the real judge, the record and the attempt."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = protocol.judge

        def judge(record: Any, attempt: Claim, **kwargs: Any) -> Any:
            return change(lambda *arguments: real(*arguments, **kwargs), record, attempt)

        patch.setattr(protocol, "judge", judge)

    return plant


def claiming(change: Callable[[Claim], Claim], outcome: Callable[[Claim, Any], Any]) -> Callable[..., None]:
    """Change what a claim attempts, and what it comes to."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = Records.claim

        async def claim(self: Records, attempt: Claim) -> Any:
            return outcome(attempt, await real(self, change(attempt)))

        patch.setattr(Records, "claim", claim)

    return plant


def nothing(owner: type, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Have a method do nothing."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(owner, name, lambda *args, **kwargs: None)

    return plant


def nothing_async(owner: type, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Have a coroutine method do nothing."""

    async def nothing(*args: object) -> None:
        pass

    return lambda patch: patch.setattr(owner, name, nothing)


def on(kind: type, change: Change) -> Change:
    """Change the operations of one kind."""
    return lambda operation: change(operation) if isinstance(operation, kind) else operation
