"""What the server counted, by its own report."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from tests.support.engines import Engine


def by_table(engine: Engine) -> dict[str, dict[str, Any]]:
    """Ask a server for its report: for each table the parts of a row that the server knows."""
    connection = http.client.HTTPConnection(urlsplit(engine.endpoint_url).netloc, timeout=10)
    try:
        connection.request("GET", "/report")
        tables = json.load(connection.getresponse())["tables"]
    finally:
        connection.close()
    return {name: _counts(table) for name, table in tables.items()}


def _counts(table: dict[str, Any]) -> dict[str, Any]:
    partitions = [*table["partitions"], table["before_splits"]]
    units = [each["consumed_writes"] for each in table["partitions"]]
    return {
        "write_units": sum(each["consumed_writes"] for each in partitions),
        "throttled_writes": sum(each["throttled_writes"] for each in partitions),
        "partitions_used": sum(each > 0 for each in units),
        "hottest_share": round(max(units) / (sum(units) or 1), 4),
        "splits": table["splits"],
    }
