"""A table of the user's: the options that name it, and what the commands ask of it."""

import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar, final

import typer

from aioidempotency._cli.failure import CommandError, in_one_line
from aioidempotency._concurrency import concurrently
from aioidempotency._core.model import AttributeNames, Location
from aioidempotency._core.placements import Procedure
from aioidempotency._keys import check_namespace
from aioidempotency._records import Records
from aioidempotency.backends.dynamodb import DynamoDBBackend
from aioidempotency.backends.dynamodb.checks import check_table_name
from aioidempotency.partitioning import CompositeKey, Partitioning
from aioidempotency.partitioning.table_layout import location_of

T = TypeVar("T")

_AT_A_TIME: Final = 8
"""Queries under way at once: enough to be quick, and few beside the table's own calls."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """The options that name a table."""

    table_name: Annotated[str, typer.Option(help="The table.")]
    namespace: Annotated[str, typer.Option(help="The namespace= of the stores.")] = ""
    endpoint_url: Annotated[str | None, typer.Option(help="Where to reach DynamoDB.")] = None
    region: Annotated[str | None, typer.Option(help="The table's AWS region.")] = None
    keys: Annotated[str, typer.Option(help="What the table calls its partition key and its sort key.")] = "pk,sk"
    attribute: Annotated[
        list[str] | None, typer.Option(help="What the table calls another attribute, as role=name: expiration=ttl.")
    ] = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Table"]:
        """Reach the table.

        Raises:
            CommandError: --keys or --attribute makes no sense.
        """
        check_table_name(self.table_name)
        check_namespace(self.namespace)
        partition, _, sort = (name.strip() for name in self.keys.partition(","))
        if not (partition and sort):
            raise CommandError(f"--keys takes two names with a comma between them, as pk,sk: not {self.keys}")
        try:
            names = AttributeNames(**dict(each.split("=", 1) for each in self.attribute or ()))
        except (TypeError, ValueError) as error:
            roles = ", ".join(AttributeNames.__dataclass_fields__)
            raise CommandError(f"--attribute takes role=name, where the role is one of {roles}") from error
        backend = DynamoDBBackend(endpoint_url=self.endpoint_url, region_name=self.region)
        try:
            table = CompositeKey(partition, sort).table(self.table_name, names)
            yield Table(backend, location_of(table, self.namespace), self.namespace)
        finally:
            await backend.aclose()


def on_a_table(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name a table; it takes them as its first argument.

    The library's errors end it with 2.
    """
    options = inspect.signature(TableOptions).parameters
    own = list(inspect.signature(command).parameters.values())[1:]

    def run(**given: Any) -> None:
        named = {name: given.pop(name) for name in options}
        with in_one_line():
            command(TableOptions(**named), **given)

    functools.update_wrapper(run, command)
    run.__dict__.pop("__wrapped__")
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *options.values())]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what typer reads
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


@final
class Table:
    """A table that can be asked; `layout_item` is where it keeps its layout."""

    def __init__(self, backend: DynamoDBBackend, layout_item: Location, namespace: str) -> None:
        self.layout_item = layout_item
        self._namespace = namespace
        self._backend = backend
        self._records = Records(backend, clock=time.time, clock_skew=1.0)

    async def run(self, procedure: Procedure[T]) -> T:
        """Execute a procedure."""
        return await self._records.run(procedure)

    async def count(
        self, partitions: Iterable[str], *, now: float, on_counted: Callable[[], object] = lambda: None
    ) -> list[int]:
        """Count the live records of each partition, some at a time; call `on_counted` after each."""

        async def count(partition: str) -> int:
            found = await self._backend.count(self.layout_item.table, partition, now=now)
            on_counted()
            return found

        return await concurrently(count, partitions, limit=_AT_A_TIME)

    async def count_missed(self, partitions: Iterable[str], strategy: Partitioning, *, now: float) -> int:
        """Count the live records of some partitions for which a claim of their key would look elsewhere."""
        # The keys of a store with a namespace begin with the namespace. Others may share the partitions.
        beginning = f"{self._namespace}#" if self._namespace else ""

        async def count(partition: str) -> int:
            missed = 0
            async for keys in self._backend.keys(self.layout_item.table, partition, now=now):
                ours = (key for key in keys if key.startswith(beginning))
                missed += sum(partition not in (strategy.home(key, now), *strategy.elsewhere(key, now)) for key in ours)
            return missed

        return sum(await concurrently(count, partitions, limit=_AT_A_TIME))
