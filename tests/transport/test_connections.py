"""Connections: one request at a time on each, kept and checked, bounded, and closed when a request is given up."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
from aiobotocore.config import AioConfig

from aioidempotency import DynamoDBBackend, StoreError
from aioidempotency.backends import Applied
from aioidempotency.backends.dynamodb import connections
from aioidempotency.backends.dynamodb.connections import Connections
from tests.batches.crowd import settle
from tests.support.raw_server import response
from tests.support.wire_server import APPLIED, Request, WireServer, scripted
from tests.transport.conftest import PUT, UPDATE, Backends, put


def pool_of(backend: DynamoDBBackend) -> Connections:
    """White box: the connections of the running loop."""
    transport: Any = backend._own.opened()
    found: Connections = transport._connections
    return found


class Gate:
    """Holds requests until a test lets them go, one by one or all."""

    def __init__(self) -> None:
        self.held: list[asyncio.Future[bytes | None]] = []
        self._came = asyncio.Condition()

    async def handler(self, request: Request, writer: asyncio.StreamWriter) -> bytes | None:
        turn: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.held.append(turn)
        async with self._came:
            self._came.notify_all()
        return await turn

    async def until(self, count: int) -> None:
        async with self._came:
            await self._came.wait_for(lambda: len(self.held) >= count)

    def answer(self, number: int, answer: bytes | None = APPLIED) -> None:
        self.held[number].set_result(answer)


class CancelledWhenGiven:
    """A turn whose caller is cancelled in the step that gives the turn."""

    def __init__(self, turn: asyncio.Future[Any], caller: asyncio.Future[Any]) -> None:
        self._turn, self._caller = turn, caller

    def done(self) -> bool:
        return self._turn.done()

    def set_result(self, given: Any) -> None:
        self._turn.set_result(given)
        self._caller.cancel()


async def test_a_connection_is_used_again(backends: Backends) -> None:
    """One connection serves calls in turn, and ten serve ten at once."""
    gate = Gate()
    async with WireServer(scripted(APPLIED)) as server:
        backend = backends(server.url, transport="lean")
        for _ in range(5):
            await backend.execute(PUT)
        assert server.connections == 1
        server.handler = gate.handler
        calls = [asyncio.ensure_future(backend.execute(put(f"k{number}"))) for number in range(10)]
        await gate.until(10)
        for number in range(10):
            gate.answer(number)
        await asyncio.gather(*calls)
        assert server.connections == 10
        await backend.aclose()
        assert "not open" in repr(backend)


async def test_a_late_answer_is_nobody_elses(backends: Backends) -> None:
    """A request that is cancelled closes its connection: the answer that comes later meets no other request."""
    gate = Gate()
    async with WireServer(gate.handler) as server:
        backend = backends(server.url, transport="lean")
        given_up = asyncio.ensure_future(backend.execute(PUT))
        await gate.until(1)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        call = asyncio.ensure_future(backend.execute(UPDATE))
        gate.answer(0, response(b'{"Item": {}}'))
        await gate.until(2)
        assert [request.connection for request in server.requests] == [1, 2]
        gate.answer(1)
        assert await call == Applied()
        assert len(pool_of(backend)._all) == 1
        await backend.aclose()


@pytest.mark.parametrize(
    "more", [APPLIED, b"HTTP/1.1 200 OK\r\n", b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{"]
)
async def test_bytes_behind_an_answer_close_the_connection(more: bytes, backends: Backends) -> None:
    """Nobody asked for them: they would begin the answer to the next request."""
    async with WireServer(scripted(APPLIED + more, APPLIED)) as server:
        backend = backends(server.url, transport="lean")
        for _ in range(2):
            assert await backend.execute(PUT) == Applied()
            await settle()
        assert [request.connection for request in server.requests] == [1, 2]
        await backend.aclose()


async def test_an_idle_connection_that_was_closed_is_not_used(backends: Backends) -> None:
    """Not even where the loop has not yet read the end: as after the freeze of an AWS Lambda."""
    async with WireServer(scripted(APPLIED)) as server:
        backend = backends(server.url, transport="lean")
        await backend.execute(PUT)
        server.drop_all()
        await settle()
        # One attempt only: a connection that is found closed is no attempt.
        assert await backend.execute(PUT) == Applied()
        (kept,) = pool_of(backend)._idle[next(iter(pool_of(backend)._idle))]
        kept.since -= connections.SURELY_OPEN + 1
        # The end arrives while this loop does nothing.
        with socket.socket(fileno=os.dup(server.sockets[-1].fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)
        assert kept.has_ended(60) is True
        assert await backend.execute(PUT) == Applied()
        assert len(server.requests) == 3
        await backend.aclose()


async def test_connections_idle_too_long_are_closed(backends: Backends) -> None:
    """`keepalive_timeout` of the configuration bounds idleness, by the sweep and at the next use."""
    config = AioConfig(connector_args={"keepalive_timeout": 0.1})
    async with WireServer(scripted(APPLIED)) as server:
        backend = backends(server.url, transport="lean", config=config)
        await backend.execute(PUT)
        pool = pool_of(backend)
        pool._sweep()
        assert len(pool._all) == 1
        for connection in pool._all:
            connection.since -= 0.2
        pool._sweep()
        await settle()
        assert (len(pool._all), len(pool.live), pool._free) == (0, 0, 256)
        await backend.execute(PUT)
        assert server.connections == 2
        await backend.aclose()


async def test_a_busy_loop_is_no_silence(backends: Backends) -> None:
    """G8: after a stall of the loop, answers may wait to be read. The next look counts, however late it is."""
    asked = asyncio.Event()

    async def silent(_: Request, writer: asyncio.StreamWriter) -> bytes:
        asked.set()
        return b""

    async with WireServer(silent) as server:
        backend = backends(server.url, transport="lean")
        calling = asyncio.create_task(backend.execute(PUT))
        await asked.wait()
        pool = pool_of(backend)
        (connection,) = pool._all
        assert connection.waiter is not None
        for is_silent in (False, True):
            connection.since -= 60
            pool._due = asyncio.get_running_loop().time() - 5
            pool._sweep()
            assert connection.waiter.done() is is_silent
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        await backend.aclose()


async def test_waiting_for_the_pool_is_fair(backends: Backends, no_pauses: None) -> None:
    """G8: each freed connection wakes the caller that waits the longest; a cancelled one passes the turn on."""
    gate = Gate()
    config = AioConfig(max_pool_connections=2)
    async with WireServer(gate.handler) as server:
        backend = backends(server.url, transport="lean", config=config, time_limit=30)
        send = (await backend._ready("orders")).send
        calls = [
            asyncio.ensure_future(send("PutItem", {"TableName": "orders", "Item": {"id": {"S": f"k{number}"}}}))
            for number in range(6)
        ]
        await gate.until(2)
        await settle()
        assert (len(server.requests), len(pool_of(backend)._waiting)) == (2, 4)
        calls[2].cancel()
        gate.answer(0)
        await gate.until(3)
        gate.answer(1, None)
        await gate.until(4)
        # The connection and the cancellation come at the same moment.
        turn, origin = pool_of(backend)._waiting[0]
        pool_of(backend)._waiting[0] = (CancelledWhenGiven(turn, calls[5]), origin)  # type: ignore[assignment] # as much
        gate.answer(2)
        await asyncio.gather(calls[5], return_exceptions=True)
        server.handler = scripted(APPLIED)
        for number in range(3, len(gate.held)):
            gate.answer(number)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        kinds = [type(each) for each in answers]
        assert kinds[0] is dict
        assert kinds[2] is kinds[5] is asyncio.CancelledError
        assert server.connections == 3, "the cut one is replaced, and the passed one is used"
        assert pool_of(backend)._free + len(pool_of(backend)._all) == 2
        await backend.aclose()


async def test_waiting_counts_towards_the_time_limit(transport: str, backends: Backends) -> None:
    """O14: with one connection that nobody answers on, the second call ends in time, too."""
    gate = Gate()
    async with WireServer(gate.handler) as server:
        config = AioConfig(max_pool_connections=1, read_timeout=60)
        backend = backends(server.url, transport=transport, config=config, time_limit=0.2)
        await backend._ready("orders")
        failures = await asyncio.gather(*(backend.execute(UPDATE) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in failures] == [StoreError] * 3
        assert all("no answer within 0.2 s" in str(each) for each in failures)
        await backend.aclose()


async def test_every_await_may_be_cancelled(backends: Backends) -> None:
    """A call is cancelled after each step of the loop: no slot, no connection and no task leaks."""
    async with WireServer(scripted(APPLIED)) as server:
        backend = backends(server.url, transport="lean", config=AioConfig(max_pool_connections=3))
        await backend._ready("orders")
        pool = pool_of(backend)
        for steps in range(40):
            call = asyncio.ensure_future(backend.execute(PUT))
            for _ in range(steps % 20):
                await asyncio.sleep(0)
            if steps >= 20:
                # Without kept connections: the connecting is cancelled, too.
                for each in list(pool._all):
                    pool._drop(each)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await settle()
            assert pool._free + len(pool._all) == 3
            assert pool.live == pool._all
        assert await backend.execute(PUT) == Applied()
        await backend.aclose()


async def test_closing_while_requests_are_under_way(backends: Backends) -> None:
    """They fail at once, those that wait for a connection as well; a later call opens a new client."""
    gate = Gate()
    async with WireServer(gate.handler) as server:
        backend = backends(server.url, transport="lean", config=AioConfig(max_pool_connections=2))
        send = (await backend._ready("orders")).send
        calls = [asyncio.ensure_future(send("PutItem", {"TableName": "orders", "Item": {}})) for _ in range(4)]
        await gate.until(2)
        await backend.aclose()
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each).__name__ for each in failures] == ["ConnectionClosedError"] * 4
        server.handler = scripted(APPLIED)
        assert await backend.execute(PUT) == Applied()
        await backend.aclose()
    assert gc.collect() >= 0


def test_two_loops_have_their_own_connections(session: Any) -> None:
    """O19: loops in two threads at once, and a loop after another, share a backend and no connection."""
    seen: list[int] = []

    async def serve(count: int, backend: DynamoDBBackend, server: WireServer) -> None:
        for _ in range(count):
            assert await backend.execute(PUT) == Applied()
        seen.append(id(pool_of(backend)))

    async def main() -> None:
        async with WireServer(scripted(APPLIED)) as server:
            backend = DynamoDBBackend(
                session=session, region_name="eu-central-1", endpoint_url=server.url, transport="lean"
            )
            await serve(3, backend, server)
            for _ in range(2):
                await asyncio.to_thread(lambda: asyncio.run(serve(3, backend, server)))
            await serve(3, backend, server)
            assert server.connections == 3
            await backend.aclose()

    asyncio.run(main())
    assert (len(seen), seen[0]) == (4, seen[3])


FORKED = """
import asyncio, os, sys, threading
sys.path.insert(0, {root!r})
from aiobotocore.session import get_session
from aioidempotency import DynamoDBBackend
from tests.support.wire_server import APPLIED, WireServer, scripted
from tests.transport.conftest import PUT

server = WireServer(scripted(APPLIED))
ready = threading.Event()

async def serve():
    async with server:
        ready.set()
        await asyncio.Event().wait()

threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
ready.wait()
session = get_session()
session.set_credentials("testing", "testing")
backend = DynamoDBBackend(session=session, region_name="eu-central-1", endpoint_url=server.url, transport="lean")
runner = asyncio.Runner()
runner.run(backend.execute(PUT))
child = os.fork()
if not child:
    # As in a worker that was forked between two invocations: the loop is a copy.
    runner.run(backend.execute(PUT))
    runner.run(backend.execute(PUT))
    os._exit(0)
os.waitpid(child, 0)
runner.run(backend.execute(PUT))
print([request.connection for request in server.requests])
runner.run(backend.aclose())
runner.close()
"""


def test_a_forked_process_leaves_its_parents_connections_alone(pytestconfig: pytest.Config) -> None:
    """O19: the child opens connections of its own, and the parent goes on with its own."""
    script = FORKED.format(root=str(pytestconfig.rootpath))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout.strip() == "[1, 2, 2, 1]", done.stderr


async def test_large_answers_are_bounded(backends: Backends, monkeypatch: pytest.MonkeyPatch, no_pauses: None) -> None:
    """More than DynamoDB ever sends is no answer, plain or compressed, and is not kept in memory."""
    monkeypatch.setattr(connections, "LARGEST_BODY", 100_000)
    large = b'{"Item": {"id": {"S": "' + b"x" * 200_000 + b'"}}}'
    async with WireServer(scripted(response(large))) as server:
        backend = backends(server.url, transport="lean")
        with pytest.raises(StoreError, match="HTTPClientError"):
            await backend.execute(PUT)
        assert len(server.requests) == 3
        await backend.aclose()


async def test_an_early_answer_does_not_keep_the_connection(backends: Backends) -> None:
    """An answer before the end of a large request leaves a rest of the request behind."""

    class Reader:
        """Answers without reading."""

        connections = 0

        async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(APPLIED)
            await writer.drain()
            await held.wait()
            writer.transport.abort()

    held, serve = asyncio.Event(), Reader()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**12)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        send = (await backends(url, transport="lean")._ready("orders")).send
        large = {"TableName": "orders", "Item": {"id": {"S": "x" * 20_000_000}}}
        assert await send("PutItem", large) == {}
        assert await send("PutItem", {"TableName": "orders", "Item": {}}) == {}
        assert serve.connections == 2
        held.set()
        await settle()
