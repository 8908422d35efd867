"""What the first call of a process costs: with the library, and two bare calls of aiobotocore's client.

    python -m bench.cold_start

Each program is a fresh process with compiled bytecode. The library's imports the library, decorates a function on a store
with its defaults, and awaits one call, which sends a put and an update. The bare one imports aiobotocore, makes a client
with its defaults, and sends such a put and such an update. The server is that of `bench.speed`, on loopback, with and
without TLS; over TLS, `AWS_CA_BUNDLE` names one authority, so that neither program reads the authorities of the system
for its connection. Processor time is that of the process until the call is answered, the programs taking turns.
Instructions are those of the whole process, counted by `valgrind --tool=cachegrind`; without valgrind they are left out.
The command takes about two minutes.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench import transports
from bench.pages import parser, say
from bench.speed.jobs import TABLE
from bench.spread import spread

_ROOT: Final = Path(__file__).resolve().parents[1]
_REFS: Final = re.compile(r"I\s+refs:\s+([\d,]+)")

_NOTHING: Final = """
async def main():
    pass
"""

_BARE: Final = f"""
from aiobotocore.session import get_session

async def main():
    async with get_session().create_client("dynamodb", endpoint_url=sys.argv[1]) as client:
        await client.put_item(
            TableName="{TABLE}",
            Item={{"id": {{"S": sys.argv[2]}}, "status": {{"S": "INPROGRESS"}}, "owner": {{"S": "me"}}}},
            ConditionExpression="attribute_not_exists(#key)",
            ExpressionAttributeNames={{"#key": "id"}},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
        await client.update_item(
            TableName="{TABLE}",
            Key={{"id": {{"S": sys.argv[2]}}}},
            UpdateExpression="SET #status = :status, #data = :data",
            ConditionExpression="#owner = :owner",
            ExpressionAttributeNames={{"#status": "status", "#data": "data", "#owner": "owner"}},
            ExpressionAttributeValues={{
                ":status": {{"S": "COMPLETED"}}, ":data": {{"S": "1"}}, ":owner": {{"S": "me"}}
            }},
        )
"""

_OURS: Final = f"""
from aioidempotency import AsyncIdempotencyStore, idempotent

store = AsyncIdempotencyStore("{TABLE}", endpoint_url=sys.argv[1])

@idempotent(store)
async def charge(order):
    return order

async def main():
    await charge(sys.argv[2])
"""

PROGRAMS: Final = {
    "an empty coroutine": _NOTHING,
    "import of the library": f"import aioidempotency\n{_NOTHING}",
    "two bare calls": _BARE,
    "a call of the library": _OURS,
}
"""What is measured. The first two say how much of the others is Python's, and the library's own."""

_END: Final = """
asyncio.run(main())
print(time.process_time())
"""


def main(arguments: Sequence[str]) -> None:
    """Measure, and print what was measured."""
    made = parser("bench.cold_start", __doc__)
    made.add_argument("--rounds", type=int, default=11, help="measured rounds")
    options = made.parse_args(arguments)
    found = measured(1) if options.quick else measured(options.rounds, count=shutil.which("valgrind") is not None)
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    say(json.dumps(found, indent=1))


def measured(rounds: int, *, count: bool = False) -> dict[str, Any]:
    """Measure all programs, with and without TLS, and count their instructions if asked to."""
    with tempfile.TemporaryDirectory() as folder:
        bundle, certificate = transports.certified(Path(folder))
        return {
            "plain": _on([], {}, rounds, count=count),
            "TLS": _on([certificate], {"AWS_CA_BUNDLE": bundle}, rounds, count=count),
        }


def _on(certificate: Sequence[str], environment: Mapping[str, str], rounds: int, *, count: bool) -> dict[str, Any]:
    with transports.serving(*certificate) as port:
        url = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
        taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
        for number in range(rounds + 1):
            for name in list(PROGRAMS) if number % 2 else list(PROGRAMS)[::-1]:
                done = _run([], PROGRAMS[name], url, f"{name} {number}", environment)
                # The first round compiles.
                if number:
                    taken[name].append(1e3 * float(done.stdout))
        found: dict[str, Any] = {"processor_ms": {name: spread(each) for name, each in taken.items()}}
        if count:
            counts = {name: _instructions(program, url, name, environment) for name, program in PROGRAMS.items()}
            found["million_instructions"] = {name: round(each / 1e6) for name, each in counts.items()}
    return found


def _instructions(program: str, url: str, key: str, environment: Mapping[str, str]) -> int:
    under = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = _run(under, program, url, key, {**environment, "PYTHONHASHSEED": "0"})
    refs = _REFS.search(done.stderr)
    assert refs is not None
    return int(refs[1].replace(",", ""))


def _run(
    under: Sequence[str], program: str, url: str, key: str, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end, with keys that no earlier one has written."""
    return subprocess.run(
        [*under, sys.executable, "-c", f"import asyncio, sys, time\n{program}{_END}", url, key],
        cwd=_ROOT,
        env=transports.surroundings(environment),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
