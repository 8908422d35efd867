"""What the calls of a run do: the library's entry points around a body that notes its beginning and end."""

import asyncio
from typing import Any, final

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    Execution,
    InProgress,
    Lease,
    Mismatch,
    Replay,
    Wait,
    idempotent,
)
from aioidempotency._namespaces import MARK, Namespace
from aioidempotency.exceptions import InProgressError, LeaseLostError, MismatchError
from tests.simulation.calls import BodyFailedError, Call, DeclinedError, How
from tests.simulation.monitor import Monitor


@final
class Workload:
    """Makes one process's calls on its store."""

    def __init__(self, store: AsyncIdempotencyStore, monitor: Monitor) -> None:
        self.store = store
        self._monitor = monitor

    async def make(self, call: Call) -> None:
        """Make one call, and note what it came to."""
        self._monitor.starts(call)
        outcome: object = None
        try:
            outcome = await self._answer(call)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - judged by the rules
            outcome = error
        self._monitor.ends(call, outcome)

    async def _answer(self, call: Call) -> object:
        match call.script.manner:
            case "execute":
                return await self._execute(call)
            case "decorated":
                return await self._decorated(call)
            case "run":
                return await self.store.run(call.script.key, self._body, call, None)
            case "by hand":
                return await self._by_hand(call)
            case "at once":
                return await self._at_once(call)
            case "forget":
                return await self.store.forget(call.script.key, running=call.script.shuts_out)

    async def _execute(self, call: Call) -> object:
        script = call.script
        async with self.store.execute(
            script.key, fingerprint=script.payload, read_first=script.read_first, **_manner(call)
        ) as execution:
            if not execution.replayed:
                execution.complete(await self._body(call, execution.lease))
                self._write(call)
        return execution.result

    async def _decorated(self, call: Call) -> object:
        script = call.script

        fingerprint = None if script.payload is None else "payload"

        @idempotent(self.store, key="key", fingerprint=fingerprint, namespace="", **_manner(call))
        async def decorated(key: str, payload: str | None) -> Any:
            value = await self._body(call, None)
            self._write(call)
            return value

        return await decorated(script.key, script.payload)

    def _write(self, call: Call) -> None:
        """Write what the script says, in the transaction of the result."""
        if call.script.effect is not None:
            Execution.current().transaction.put("ledger", {"pk": call.name})
        if call.script.effect == "refused":
            Execution.current().transaction.check("limits", {"pk": call.name}, "attribute_exists(pk)")

    async def _at_once(self, call: Call) -> object:
        """Commit a result and its effects without a claim."""
        script = call.script
        writes = [{"Put": {"TableName": "ledger", "Item": {"pk": call.name}}}]
        if script.effect == "refused":
            check = {"TableName": "limits", "Key": {"pk": call.name}, "ConditionExpression": "attribute_exists(pk)"}
            writes.append({"ConditionCheck": check})
        self._monitor.prepares(call, "refused" if script.effect == "refused" else "value")
        return await self.store.commit_once(
            script.key, {"by": call.name}, writes, fingerprint=script.payload, retention=script.retention
        )

    async def _by_hand(self, call: Call) -> object:
        script = call.script
        match await self.store.claim(script.key, fingerprint=script.payload, retention=script.retention):
            case Claimed(lease):
                return await self._finish(call, lease)
            case Replay(record):
                return record.result
            case InProgress(record, retry_after):
                raise InProgressError(record, retry_after)
            case Mismatch(record):
                raise MismatchError(record)

    async def _finish(self, call: Call, lease: Lease) -> object:
        """Run, renew once, and complete or release, as a caller without `execute` does."""
        try:
            value = await self._body(call, lease)
        except BodyFailedError:
            await self.store.release(lease)
            raise
        await self.store.complete(await self._renewed(call, lease), value)
        return value

    async def _renewed(self, call: Call, lease: Lease) -> Lease:
        asked = call.clock(asyncio.get_running_loop().time())
        try:
            renewed = await self.store.renew(lease)
        except LeaseLostError:
            return lease
        if renewed.expires_at <= asked:
            self._monitor.breaks(f"{call.name} was given a renewed lease that is over")
        return renewed

    async def _body(self, call: Call, lease: Lease | None) -> Any:
        self._monitor.begins(call, None if lease is None else lease.expires_at)
        try:
            for pause in call.script.pauses:
                await asyncio.sleep(pause)
        except asyncio.CancelledError:
            self._monitor.body_ends(call, "cancelled")
            raise
        return self._come_to(call)

    def _come_to(self, call: Call) -> object:
        """Bring a body to the end that its script says."""
        match call.script.ending:
            case "fails":
                self._monitor.body_ends(call, "fails")
                raise BodyFailedError(call.name)
            case "declines":
                self._monitor.body_ends(call, "declines")
                raise DeclinedError(call.name)
            case "unstorable":
                self._monitor.body_ends(call, self._finished(call))
                return object()
            case "value":
                self._monitor.body_ends(call, self._finished(call))
                return {"by": call.name}

    @staticmethod
    def _finished(call: Call) -> How:
        return "refused" if call.script.effect == "refused" else "value"


# Under `run`, a call has its function's namespace; here, the keys of all kinds of calls are the same.
setattr(Workload._body, MARK, Namespace(""))


def _manner(call: Call) -> dict[str, Any]:
    script = call.script
    return {
        "lease": script.lease,
        "retention": script.retention,
        "heartbeat": script.heartbeat,
        "on_in_progress": "raise" if script.patience is None else Wait(script.patience),
        "on_error": script.on_error,
        "store_errors": (DeclinedError,),
    }
