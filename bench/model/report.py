"""What was asked, and what happened in the partitions: for whoever runs the model, in no API of DynamoDB's."""

import time
from dataclasses import asdict

from bench.model.expressions import Request
from bench.model.tables import Database, Table
from bench.model.writes import Answer


def report(request: Request, database: Database, _: float) -> Answer:
    """Count requests, and units, refusals and items of each partition; with `Reset`, start again at zero.

    The processor time is this process's since its start, and is never set back.
    """
    tables = {name: _table(table) for name, table in database.tables.items()}
    requests = dict(database.requests)
    if request.get("Reset"):
        database.requests.clear()
        for table in database.tables.values():
            table.partitions.reset()
    return {"tables": tables, "requests": requests, "processor_seconds": time.process_time()}


def _table(table: Table) -> Answer:
    found = table.partitions.report(table.points)
    partitions = [{"start": each.start.hex(), **asdict(each.counts), "items": items} for each, items in found]
    return {
        "partitions": partitions,
        "splits": table.partitions.splits,
        "before_splits": asdict(table.partitions.past),
    }
