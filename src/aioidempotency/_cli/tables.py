"""A user's table, as the options of a command name it, and what the commands ask of it."""

import functools
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar, final

import typer

from aioidempotency._cli.failure import in_one_line
from aioidempotency._concurrency import concurrently
from aioidempotency._core.model import AttributeNames, Location
from aioidempotency._core.placements import Procedure
from aioidempotency._keys import check_namespace
from aioidempotency._options import check_table_name
from aioidempotency._records import Records
from aioidempotency.backends.dynamodb import DynamoDBBackend
from aioidempotency.exceptions import ConfigurationError
from aioidempotency.partitioning import CompositeKey
from aioidempotency.partitioning.table_layout import location_of

T = TypeVar("T")

AT_A_TIME: Final = 8
"""Queries under way at once: enough to be quick, and few beside the table's own calls."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The table that the options name."""

    table_name: str
    namespace: str
    endpoint_url: str | None
    region: str | None
    keys: str
    attributes: tuple[str, ...]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Opened"]:
        """Reach the table.

        Raises:
            ConfigurationError: The options make no sense.
        """
        check_table_name(self.table_name)
        check_namespace(self.namespace)
        partition_attribute, _, sort_attribute = self.keys.partition(",")
        table = CompositeKey(partition_attribute.strip(), sort_attribute.strip()).table(self.table_name, self._names())
        backend = DynamoDBBackend(endpoint_url=self.endpoint_url, region_name=self.region)
        try:
            yield Opened(backend, location_of(table, self.namespace))
        finally:
            await backend.aclose()

    def _names(self) -> AttributeNames:
        given = {role: name for role, _, name in (each.partition("=") for each in self.attributes)}
        try:
            return AttributeNames(**given)
        except TypeError as error:
            known = ", ".join(AttributeNames.__dataclass_fields__)
            raise ConfigurationError(f"--attribute takes role=name, where the role is one of {known}") from error


def _options(
    *,
    table_name: Annotated[str, typer.Option(help="The table.")],
    namespace: Annotated[str, typer.Option(help="The namespace= of the stores.")] = "",
    endpoint_url: Annotated[str | None, typer.Option(help="Where to reach DynamoDB.")] = None,
    region: Annotated[str | None, typer.Option(help="The table's AWS region.")] = None,
    keys: Annotated[str, typer.Option(help="What the table calls its partition key and its sort key.")] = "pk,sk",
    attribute: Annotated[
        list[str] | None, typer.Option(help="What the table calls another attribute, as role=name: expiration=ttl.")
    ] = None,
) -> Choice:
    """Name a table."""
    return Choice(
        table_name=table_name,
        namespace=namespace,
        endpoint_url=endpoint_url,
        region=region,
        keys=keys,
        attributes=tuple(attribute or ()),
    )


def on_a_table(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name a table; it takes a `Choice` as its first argument.

    The library's errors end it with 2.
    """
    options = inspect.signature(_options).parameters
    own = list(inspect.signature(command).parameters.values())[1:]

    def run(**given: Any) -> None:
        named = {name: given.pop(name) for name in options}
        with in_one_line():
            command(_options(**named), **given)

    functools.update_wrapper(run, command)
    run.__dict__.pop("__wrapped__")
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *options.values())]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what typer reads
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


@final
class Opened:
    """A table that can be asked."""

    def __init__(self, backend: DynamoDBBackend, place: Location) -> None:
        self.place = place
        self._backend = backend
        self._records = Records(backend, clock=time.time, clock_skew=1.0)

    async def drive(self, procedure: Procedure[T]) -> T:
        """Execute a procedure."""
        return await self._records.run(procedure)

    async def counted(
        self, partitions: Iterable[str], *, now: float, tell: Callable[[], object] = lambda: None
    ) -> list[int]:
        """Count the live records of each partition, some at a time; `tell` is called after each."""

        async def count(partition: str) -> int:
            found = await self._backend.count(self.place.table, partition, now=now)
            tell()
            return found

        counting: Callable[[str], Awaitable[int]] = count
        return await concurrently(counting, partitions, limit=AT_A_TIME)
