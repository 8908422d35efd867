"""What happened in the partitions: for whoever runs the model, in no API of DynamoDB's."""

from dataclasses import asdict

from bench.model.expressions import Request
from bench.model.tables import Database, Table
from bench.model.writes import Answer


def report(request: Request, database: Database, _: float) -> Answer:
    """Count units, refusals and items for each partition of each table; with `Reset`, start again at zero."""
    tables = {name: _table(table) for name, table in database.tables.items()}
    if request.get("Reset"):
        for table in database.tables.values():
            table.partitions.reset()
    return {"tables": tables}


def _table(table: Table) -> Answer:
    found = table.partitions.report(table.points)
    partitions = [{"start": each.start.hex(), **asdict(each.counts), "items": items} for each, items in found]
    return {
        "partitions": partitions,
        "splits": table.partitions.splits,
        "before_splits": asdict(table.partitions.past),
    }
