"""The server that the contestants talk to: the few requests that they send, answered in memory.

The server knows writes of one item under the conditions that the library and Powertools write, reads, and statements
as the library writes them. Any other request is refused, and an item over 1 KB: so each write is one unit. It has no
limits, TTL, indexes or signatures, and does not say what capacity was consumed.
`tests/bench/test_speed_server.py` compares its answers with MiniStack's.

    python -m bench.speed.server CERTIFICATE SECONDS

It listens on two ports: in the clear, where it also reports what it counted, and over TLS. Each answer waits so many
seconds, 0 for none.
"""

import gc
import re
import selectors
import socket
import ssl
import sys
import time
import zlib
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final, final

from msgspec import json

from tests.support.lifeline import announce, exit_with_parent, listen

Item = dict[str, dict[str, str]]
Body = dict[str, Any]
Term = tuple[str, str, Any]
"""What is asked, of which attribute, and against which value: ("=", "owner", {"S": "me"})."""

REPORT: Final = "Bench.Report"
"""The target that answers with what was counted since the last report."""

_LARGEST: Final = 1024
_PARAMETERS: Final = {
    *("TableName", "Key", "Item", "ConditionExpression", "UpdateExpression", "ReturnValuesOnConditionCheckFailure"),
    *("ExpressionAttributeNames", "ExpressionAttributeValues", "ConsistentRead", "RequestItems", "Statements"),
    *("KeySchema", "AttributeDefinitions", "BillingMode", "ReturnConsumedCapacity"),
}
_BACKLOG: Final = 1024
"""Connections that wait to be accepted: of as many calls at once, each may open its own."""

_TERM: Final = re.compile(r"(attribute(?:_not)?_exists)\((#\w+)\)|(#\w+) (=|<) (:\w+)")
_STATEMENT: Final = re.compile(r'(INSERT|UPDATE|DELETE)(?: INTO| FROM)? "([^"]+)"(.*?)(?: WHERE (.*))?')
_PARAMETER: Final = re.compile(r"""["'](.+?)["'](?:=|: )\?""")


class RefusedError(Exception):
    """An exception of DynamoDB's API: its name, its message, and fields of its own."""

    def __init__(self, name: str, message: str, **fields: object) -> None:
        super().__init__(name, message)
        self.body = {"__type": f"com.amazonaws.dynamodb.v20120810#{name}", "message": message, **fields}
        self.error = {"Code": name.removesuffix("Exception"), "Message": message, **fields}


def _unknown(what: str) -> RefusedError:
    return RefusedError("ValidationException", f"this server does not know {what}")


@final
@dataclass(frozen=True, slots=True)
class Table:
    """The names of a table's key attributes, and its items by their keys."""

    names: Sequence[str]
    items: dict[tuple[str, ...], Item] = field(default_factory=dict)

    def key(self, item: Item) -> tuple[str, ...]:
        """Find the key in an item, or in a key."""
        return tuple([item[name]["S"] for name in self.names])

    def put(self, item: Item) -> None:
        """Store an item in the place of an earlier one."""
        if sum(len(name) + len(content) for name, value in item.items() for content in value.values()) > _LARGEST:
            raise _unknown("items over 1 KB")
        self.items[self.key(item)] = item


@final
class Service:
    """All tables, and what was counted since the last report."""

    def __init__(self, secure_port: int = 0) -> None:
        self._secure_port = secure_port
        self._tables: dict[str, Table] = {}
        self._counts = Counter(requests=0, write_units=0, read_units=0)

    def create(self, table_name: str) -> None:
        """Create a table with the key `id`."""
        self._tables[table_name] = Table(["id"])

    def answer(self, target: str, content: bytes) -> tuple[int, bytes]:
        """Answer a request as it comes over the wire: its status and its body."""
        try:
            return 200, json.encode(self._report() if target == REPORT else self._answer(target, json.decode(content)))
        except RefusedError as refused:
            return 400, json.encode(refused.body)

    def _answer(self, target: str, body: Body) -> Body:
        operation = target.rpartition(".")[2]
        if body.get("ReturnValues") == "NONE":
            del body["ReturnValues"]
        if not body.keys() <= _PARAMETERS:
            raise _unknown(f"{sorted(body.keys() - _PARAMETERS)} in {operation}")
        self._counts["requests"] += 1
        match operation:
            case "PutItem" | "UpdateItem" | "DeleteItem":
                return self._write(self._table(body), body)
            case "BatchExecuteStatement":
                return {"Responses": [self._execute(each) for each in body["Statements"]]}
            case "GetItem":
                found = self._read(body["TableName"], [body["Key"]])
                return {"Item": found[0]} if found else {}
            case "BatchGetItem":
                asked = body["RequestItems"].items()
                return {"Responses": {name: self._read(name, each["Keys"]) for name, each in asked}}
            case "ListTables":
                return {"TableNames": list(self._tables)}
            case "CreateTable" if body["TableName"] not in self._tables:
                self._tables[body["TableName"]] = Table([each["AttributeName"] for each in body["KeySchema"]])
            case "DeleteTable":
                self._tables.pop(body["TableName"])
            case _:
                raise _unknown(f"this {operation}")
        return {"TableDescription": {"TableName": body["TableName"], "TableStatus": "ACTIVE"}}

    def _report(self) -> Body:
        found, self._counts = self._counts, Counter(requests=0, write_units=0, read_units=0)
        return {**found, "processor": time.process_time(), "secure_port": self._secure_port}

    def _table(self, body: Body) -> Table:
        if table := self._tables.get(body["TableName"]):
            return table
        raise RefusedError("ResourceNotFoundException", "Requested resource not found")

    def _read(self, table_name: str, keys: Sequence[Item]) -> list[Item]:
        self._counts["read_units"] += len(keys)
        table = self._table({"TableName": table_name})
        return [item for key in keys if (item := table.items.get(table.key(key)))]

    def _write(self, table: Table, body: Body) -> Body:
        """Put, update or delete an item, if one of the condition's alternatives holds."""
        names, values = (body.get(f"ExpressionAttribute{each}", {}) for each in ("Names", "Values"))
        key: Item = body.get("Item") or body["Key"]
        stored = table.items.get(table.key(key))
        alternatives = conditions(body.get("ConditionExpression", ""))
        terms = [[(asked, names[name], values.get(value)) for asked, name, value in each] for each in alternatives]
        self._check(stored, terms, body)
        if "UpdateExpression" in body:  # `SET #a = :a, #b = :b` reads as a condition's comparisons do
            (pairs,) = conditions(body["UpdateExpression"].removeprefix("SET ").replace(", ", " AND "))
            changes = {names[name]: values[value] for _, name, value in pairs}
            table.put({**(stored or key), **changes})
        elif "Item" in body:
            table.put(key)
        else:
            table.items.pop(table.key(key), None)
        return {}

    def _execute(self, given: Body) -> Body:
        """Execute one statement; what refuses it is the answer to it alone."""
        kind, table_name, changed, compared = statement(given["Statement"])
        table = self._table({"TableName": table_name})
        changes = dict(zip(changed, given["Parameters"], strict=False))
        wanted = dict(zip(compared, given["Parameters"][len(changed) :], strict=True))
        stored = table.items.get(table.key(wanted or changes))
        # In PartiQL, DynamoDB answers the deletion of a missing item as applied.
        terms = [("=", *each) for each in wanted.items()] if stored is not None or kind == "UPDATE" else []
        terms += [("attribute_not_exists", table.names[0], None)] if kind == "INSERT" else []
        try:
            self._check(stored, [terms], given)
        except RefusedError as refused:
            error = {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}
            return {"Error": error if kind == "INSERT" else refused.error, "TableName": table_name}
        if kind == "DELETE":
            table.items.pop(table.key(wanted), None)
        else:
            table.put({**(stored or {}), **changes})
        return {"TableName": table_name}

    def _check(self, stored: Item | None, alternatives: Sequence[Sequence[Term]], asked: Body) -> None:
        """Count a write, and refuse it unless all terms of one alternative hold."""
        self._counts["write_units"] += 1
        if not any(all(_holds(stored or {}, *term) for term in terms) for terms in alternatives):
            shown = {"Item": stored} if stored and "ReturnValuesOnConditionCheckFailure" in asked else {}
            raise RefusedError("ConditionalCheckFailedException", "The conditional request failed", **shown)


def _holds(item: Item, asked: str, name: str, wanted: dict[str, str]) -> bool:
    if asked.startswith("attribute"):
        return (name in item) == (asked == "attribute_exists")
    stored = item.get(name)
    if stored is None or stored.keys() != wanted.keys() or (asked == "=" and stored == wanted):
        return stored == wanted
    # Both are numbers, or both are texts that differ: those are compared with "=" alone.
    left, right = (float(each.get("N", "nan")) for each in (stored, wanted))
    return left == right if asked == "=" else left < right


@lru_cache
def conditions(text: str) -> tuple[tuple[tuple[str, str, str], ...], ...]:
    """Split `a OR b OR (c AND d)` into alternatives, and those into terms. No text is no condition."""
    alternatives = [each[1:-1] if each.startswith("(") else each for each in text.split(" OR ")]
    terms = [[_TERM.fullmatch(term) for term in each.split(" AND ")] for each in alternatives if text]
    if any(None in each for each in terms):
        raise _unknown(f"the expression {text}")
    # Of both forms the groups that are not there are empty: one of the two has a name.
    found = [[each.groups("") for each in alternative if each] for alternative in terms]
    return tuple(tuple((f or o, t or n, v) for f, t, n, o, v in each) for each in found) or ((),)


@lru_cache
def statement(text: str) -> tuple[str, str, Sequence[str], Sequence[str]]:
    """Read a statement: its kind, its table, the attributes that it sets, and those that it compares."""
    found = _STATEMENT.fullmatch(text)
    if found is None:
        raise _unknown(f"the statement {text}")
    return found[1], found[2], _PARAMETER.findall(found[3]), _PARAMETER.findall(found[4] or "")


_BLOCK: Final = 1 << 17
_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_TARGET: Final = re.compile(rb"\r\nx-amz-target:[ \t]*([\w.]+)", re.IGNORECASE)
_HEAD: Final = b"HTTP/1.1 %d \r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\nX-Amz-Crc32: %d"


@final
class Connections:
    """HTTP/1.1 for keep-alive clients and bodies of a declared length, on sockets that do not block.

    No framework and no event loop: they would be the bottleneck, above all over TLS, where asyncio's is Python.
    A client sends its next request after the answer to the last one, and answers are small: so all that a socket has is
    read at once, and what it is sent always fits into its buffer.
    """

    def __init__(self, service: Service, seconds: float) -> None:
        self._service = service
        self._seconds = seconds
        # Python's epoll rounds a wait up to whole milliseconds; a select does not, but knows no more than 1,024 sockets.
        self._selector = selectors.SelectSelector() if seconds else selectors.DefaultSelector()
        self._received: dict[socket.socket, bytes] = {}
        self._late: deque[tuple[float, socket.socket, bytes]] = deque()

    def accept_from(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Answer all that connect, by TLS if there is a context."""
        listener.listen(_BACKLOG)
        listener.settimeout(0)

        def accept() -> None:
            with suppress(BlockingIOError):
                accepted, _ = listener.accept()
                accepted.settimeout(0)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if tls is not None:
                    # The handshake goes on with each read.
                    accepted = tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
                self._received[accepted] = b""
                self._selector.register(accepted, selectors.EVENT_READ, partial(self._read, accepted))

        self._selector.register(listener, selectors.EVENT_READ, accept)

    def serve(self) -> None:
        """Answer for ever."""
        while True:
            wait = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            for key, _ in self._selector.select(wait):
                key.data()
            while self._late and self._late[0][0] <= time.monotonic():
                _, receiver, answer = self._late.popleft()
                self._send(receiver, answer)

    def _read(self, sender: socket.socket) -> None:
        """Answer every request that is complete by now."""
        try:
            data = sender.recv(_BLOCK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(sender)
            del self._received[sender]
            sender.close()
            return
        received = self._received[sender] + data
        while (end := received.find(_END)) >= 0:
            length, target = _LENGTH.search(received, 0, end), _TARGET.search(received, 0, end)
            start = end + len(_END)
            end = start + (int(length[1]) if length else 0)
            if len(received) < end:
                break
            status, answer = self._service.answer(target[1].decode() if target else "", received[start:end])
            received = received[end:]
            answer = _HEAD % (status, len(answer), zlib.crc32(answer)) + _END + answer
            if self._seconds:
                self._late.append((time.monotonic() + self._seconds, sender, answer))
            else:
                self._send(sender, answer)
        self._received[sender] = received

    def _send(self, receiver: socket.socket, answer: bytes) -> None:
        with suppress(OSError):  # it is gone, and the next read says so
            receiver.sendall(answer)


def _serve(certificate: str, seconds: float) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    clear, secure = listen(), listen()
    connections = Connections(Service(secure.getsockname()[1]), seconds)
    connections.accept_from(clear, None)
    connections.accept_from(secure, tls)
    announce(clear.getsockname()[1])
    gc.disable()  # items are no garbage, and walking through all of them takes longer than an answer
    connections.serve()


if __name__ == "__main__":
    exit_with_parent()
    _serve(sys.argv[1], float(sys.argv[2]))
