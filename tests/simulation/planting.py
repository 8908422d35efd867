"""Means to plant a fault: the library's own code with other arguments, or with other operations."""

from collections.abc import Callable, Generator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from aioidempotency import _executing
from aioidempotency._core import conditions, protocol
from aioidempotency._core.conditions import HeldBy, Requirement
from aioidempotency._core.operations import Get
from aioidempotency._core.protocol import Claim

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


def rewriting(procedure: str, change: Change, *, module: ModuleType = protocol) -> Callable[[pytest.MonkeyPatch], None]:
    """Change the operations that a procedure asks for."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = getattr(module, procedure)
        patch.setattr(module, procedure, lambda *args, **kwargs: changed(real(*args, **kwargs), change))
        requirements(patch, lambda condition, required: () if condition is ANYTHING else required)

    return plant


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
        patch.setattr(_executing, "judge", judge)

    return plant


def claiming(change: Callable[[Claim], Claim], outcome: Callable[[Claim, Any], Any]) -> Callable[..., None]:
    """Change what a claim attempts, and what it comes to."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = protocol.claim

        def claim(attempt: Claim) -> Generator[Any, Any, Any]:
            return outcome(attempt, (yield from real(change(attempt))))

        patch.setattr(protocol, "claim", claim)

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
