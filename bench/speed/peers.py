"""The two bare calls by other clients: aiodynamo, and pydynox, whose client is written in Rust.

Each writes what `bench.speed.bare` writes, as far as its interface says the same, with its defaults. Neither can send the
library's requests as they are: they make the expressions or the attribute values themselves.
"""

import json
import logging
import sys
from typing import Any, Final, final

import aiohttp
from aiodynamo.client import Client
from aiodynamo.credentials import Credentials
from aiodynamo.errors import ConditionalCheckFailed
from aiodynamo.expressions import F
from aiodynamo.http.aiohttp import AIOHTTP
from pydynox import DynamoDBClient
from pydynox.exceptions import ConditionalCheckFailedException
from yarl import URL

from bench.speed import bare, worker
from bench.speed.calls import Calls
from bench.speed.jobs import TABLE
from bench.speed.processes import AWS

_REGION: Final = AWS["AWS_REGION"]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Read attribute values: these libraries take Python's own."""
    return {name: int(value["N"]) if "N" in value else value["S"] for name, value in values.items()}


@final
class Aiodynamo(Calls):
    """By aiodynamo on aiohttp. A refusal does not show the item, so a duplicate is read."""

    def __init__(self, session: aiohttp.ClientSession, url: str, asked: dict[str, Any]) -> None:
        super().__init__()
        self._session = session
        self._table = Client(AIOHTTP(session), Credentials.auto(), _REGION, URL(url)).table(TABLE)
        self._item = _plain(asked["put_item"]["Item"])
        self._values = _plain(asked["update_item"]["ExpressionAttributeValues"])

    async def call(self, key: str) -> object:
        """Put if absent, and update if owned."""
        location, values = {"id": bare.location(self._item["id"], key)}, self._values
        try:
            await self._table.put_item({**self._item, **location}, condition=F("id").does_not_exist())
        except ConditionalCheckFailed:
            return json.loads((await self._table.get_item(location, consistent_read=True))["data"])
        result = await self.body()
        await self._table.update_item(
            location,
            F("status").set(values[":new_status"])
            & F("expiration").set(values[":new_expiration"])
            & F("data").set(json.dumps(result, separators=(",", ":"))),
            condition=F("owner").equals(values[":owner"]) & F("status").equals(values[":status"]),
        )
        return result

    async def aclose(self) -> None:
        """Close the session."""
        await self._session.close()


@final
class Pydynox(Calls):
    """By pydynox."""

    def __init__(self, url: str, asked: dict[str, Any]) -> None:
        super().__init__()
        # It tells of each request that takes 100 ms, which many do with 1,024 at once.
        logging.getLogger("pydynox").setLevel(logging.ERROR)
        self._client = DynamoDBClient(region=_REGION, endpoint_url=url)
        self._put, self._update = asked["put_item"], asked["update_item"]
        self._item = _plain(self._put["Item"])
        self._values = _plain(self._update["ExpressionAttributeValues"])

    async def call(self, key: str) -> object:
        """Put if absent, and update if owned."""
        location = {"id": bare.location(self._item["id"], key)}
        try:
            await self._client.put_item(
                TABLE,
                {**self._item, **location},
                condition_expression=self._put["ConditionExpression"],
                expression_attribute_names=self._put["ExpressionAttributeNames"],
                return_values_on_condition_check_failure=True,
            )
        except ConditionalCheckFailedException as refused:
            return json.loads(refused.item["data"])
        result = await self.body()
        await self._client.update_item(
            TABLE,
            location,
            update_expression=self._update["UpdateExpression"],
            condition_expression=self._update["ConditionExpression"],
            expression_attribute_names=self._update["ExpressionAttributeNames"],
            expression_attribute_values={**self._values, ":new_data": json.dumps(result, separators=(",", ":"))},
            return_values_on_condition_check_failure=True,
        )
        return result

    async def aclose(self) -> None:
        """Leave the client to the end of the process: it has no way to be closed."""


async def aiodynamo(url: str) -> Aiodynamo:
    """Open a session of aiohttp, with its defaults, and a client of aiodynamo on it."""
    return Aiodynamo(aiohttp.ClientSession(), url, await bare.recorded())


async def pydynox(url: str) -> Pydynox:
    """Open a client of pydynox."""
    return Pydynox(url, await bare.recorded())


if __name__ == "__main__":
    worker.main({"aiodynamo": aiodynamo, "pydynox": pydynox}, *sys.argv[1:])
