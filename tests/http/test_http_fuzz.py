"""Requests that nobody would send on purpose, driven by the OpenAPI document and by hand."""

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from aioidempotency import MemoryBackend
from aioidempotency._core.operations import Operation, Put, Reply
from tests.http.front_ends import serving

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def example(name: str) -> ModuleType:
    """Load an example's module, which only its own folder has by this name."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / name / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # FastAPI looks up annotations in the module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class CountingBackend:
    """Counts the claims."""

    def __init__(self) -> None:
        self.claims = 0
        self._inner = MemoryBackend()

    async def execute(self, operation: Operation) -> Reply:
        """Carry out one operation."""
        self.claims += isinstance(operation, Put)
        return await self._inner.execute(operation)


class Wire:
    """Sends bytes, and reads whole responses."""

    def __init__(self, url: str, backend: CountingBackend, runs: list[Any]) -> None:
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        self.backend = backend
        self.runs = runs

    async def send(self, *headers: bytes, body: bytes, length: bool = True) -> tuple[int, bytes, bytes]:
        """Send a payment: status, head and body of the response."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        lines = [b"POST /payments HTTP/1.1", b"Host: example", b"Connection: close", *headers]
        if length:
            lines.append(b"Content-Length: %d" % len(body))
        writer.write(b"\r\n".join([*lines, b"", body]))
        async with asyncio.timeout(10):
            answer = await reader.read()
        await closed(writer)
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), head.lower(), content


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whoever has closed it before."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def wire(name: str) -> AsyncIterator[Wire]:
    module, backend = example(name), CountingBackend()
    app = module.app if name == "fastapi" else module.make_app()
    with module.store.override(backend=backend):
        async with serving(app) as url:
            yield Wire(url, backend, module.payments)


AUTHORIZED = b"Authorization: Bearer token-of-anna"
JSON = b"Content-Type: application/json"

# What a server takes as the value of a header: anything but control characters, which it refuses by itself.
VALUES = st.binary(max_size=40).map(lambda value: bytes(each for each in value if each >= 0x20 and each != 0x7F))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
BODIES = (
    st.fixed_dictionaries({"article": SCALARS, "cents": SCALARS}).map(lambda order: json.dumps(order).encode())
    | st.fixed_dictionaries({"article": st.text(max_size=5), "cents": st.integers(0, 99)}).map(
        lambda order: json.dumps(order).encode()
    )
    | st.binary(max_size=30)
)


@pytest.mark.parametrize("name", ["fastapi", "aiohttp"])
def test_no_bytes_of_header_or_body_cause_an_error_of_ours(name: str) -> None:
    """H1, H2, U3: no 500, no hang, and nothing is claimed that had not begun."""
    with asyncio.Runner() as runner:
        context = wire(name)
        made = runner.run(context.__aenter__())

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(VALUES, BODIES, st.booleans())
        def fuzz(key: bytes, body: bytes, authorized: bool) -> None:
            claims, runs = made.backend.claims, len(made.runs)
            headers = [b"Idempotency-Key: " + key, JSON, *([AUTHORIZED] if authorized else [])]
            status, head, content = runner.run(made.send(*headers, body=body))
            assert status < 500
            if b"application/problem+json" in head:
                assert json.loads(content)["status"] == status
                assert len(made.runs) == runs
            if not authorized:
                assert status in {400, 401, 422}
                assert made.backend.claims == claims
            if status == 400 and b"idempotency_key_invalid" in content:
                assert made.backend.claims == claims
            if len(made.runs) > runs:
                assert (status, made.backend.claims - claims) == (201, 1)

        fuzz()
        runner.run(context.__aexit__(None, None, None))


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": document["components"]}


def test_each_answer_is_in_the_openapi_document() -> None:
    """H4: with its status, its media type, and the schema of its content."""
    module = example("fastapi")
    document = module.app.openapi()
    operation = document["paths"]["/payments"]["post"]
    good = b'{"article": "chair", "cents": 1}'
    requests = [
        ([b"Idempotency-Key: k-1", AUTHORIZED, JSON], good),
        ([b"Idempotency-Key: k-1", AUTHORIZED, JSON], good),
        ([b"Idempotency-Key: k-1", AUTHORIZED, JSON], b'{"article": "sofa", "cents": 1}'),
        ([AUTHORIZED, JSON], good),
        ([b'Idempotency-Key: "', AUTHORIZED, JSON], good),
        ([b"Idempotency-Key: k-2", AUTHORIZED, JSON], b"{}"),
        ([b"Idempotency-Key: k-3", AUTHORIZED, JSON], b" " * 2**20 + good),
    ]

    async def sent() -> list[tuple[int, bytes, bytes]]:
        async with wire("fastapi") as made:
            return [await made.send(*headers, body=body) for headers, body in requests]

    answers = asyncio.run(sent())
    assert [status for status, _, _ in answers] == [201, 201, 422, 400, 400, 422, 413]
    for status, head, content in answers:
        kind = "application/problem+json" if b"problem+json" in head else "application/json"
        schema = operation["responses"][str(status)]["content"][kind]["schema"]
        Draft202012Validator(_resolved(document, schema)).validate(json.loads(content))


@pytest.mark.parametrize("name", ["fastapi", "aiohttp"])
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([b"Transfer-Encoding: chunked"], b'5\r\n{"cen\r\nx\r\n'),
        ([b"Content-Length: 100"], b"half"),
        ([b"Content-Encoding: gzip", b"Content-Length: 4"], b"half"),
    ],
    ids=["bad chunk", "half a body", "bad gzip"],
)
async def test_a_body_that_breaks_off_claims_nothing(name: str, headers: list[bytes], body: bytes) -> None:
    """H12: whatever the server makes of such a request, no hang, and no handler runs twice."""
    async with wire(name) as made:
        reader, writer = await asyncio.open_connection(made.host, made.port)
        lines = [b"POST /payments HTTP/1.1", b"Host: x", b"Idempotency-Key: k-1", AUTHORIZED, JSON, *headers, b"", body]
        writer.write(b"\r\n".join(lines))
        writer.write_eof()
        async with asyncio.timeout(10):
            await reader.read()
        await closed(writer)
        assert made.runs == []
