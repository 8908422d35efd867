"""What the calls of a run do: the library's entry points around a body that notes its beginning and end."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
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
from aioidempotency._call import CURRENT
from aioidempotency._namespaces import MARK, Namespace
from aioidempotency.exceptions import InProgressError, LeaseLostError, MismatchError
from tests.simulation.calls import CALL, BodyFailedError, Call, DeclinedError, How
from tests.simulation.loop import now
from tests.simulation.monitor import Monitor
from tests.simulation.plan import Script

BlockOf = AbstractAsyncContextManager[Execution]


@final
class Workload:
    """Makes one process's calls on its store."""

    def __init__(self, store: AsyncIdempotencyStore, monitor: Monitor, join: Callable[[Script], Call]) -> None:
        self.store = store
        self._monitor = monitor
        self._join = join

    async def make(self, call: Call) -> None:
        """Make one call, and note what it came to; of a pair, both."""
        task = asyncio.current_task()
        assert task is not None
        if call.script.manner == "pair":
            await Pair(self, self._monitor).make(call, self._join)
        else:
            await self._one(call)
        if task.cancelling() > call.cancels:
            self._monitor.breaks(f"{call.name} left its task cancelled")

    async def _one(self, call: Call) -> None:
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
            case "pair":
                raise AssertionError
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
        asked = call.clock(now())
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
        return self.come_to(call)

    def come_to(self, call: Call) -> object:
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


@final
class Pair:
    """Two blocks that one task holds at a time. The first to be entered is the first to be left."""

    def __init__(self, workload: Workload, monitor: Monitor) -> None:
        self._workload = workload
        self._monitor = monitor
        self._held: list[tuple[Call, BlockOf, Execution]] = []

    async def make(self, call: Call, join: Callable[[Script], Call]) -> None:
        """Enter both blocks, as far as their keys are free, and leave each with its own result."""
        assert call.script.second is not None
        error = await self._enter(call)
        if error is None:
            second = call.second = join(call.script.second)
            error = await self._enter(second)
        if len(self._held) == 2:
            self._monitor.count("two blocks")
        while self._held:
            error = await self._leave(*self._held.pop(0), error)
        if CURRENT.get() is not None:
            self._monitor.breaks(f"{call.name} has left its blocks, and one of them is still the current one")

    async def _enter(self, call: Call) -> asyncio.CancelledError | None:
        CALL.set(call)
        self._monitor.starts(call)
        script = call.script
        block = self._workload.store.execute(
            script.key, fingerprint=script.payload, read_first=script.read_first, **_manner(call)
        )
        try:
            execution = await block.__aenter__()
        except asyncio.CancelledError as error:
            self._cancelled(call.started)
            self._end(call, error)
            return error
        except Exception as error:  # noqa: BLE001 - judged by the rules
            self._end(call, error)
            return None
        self._held.append((call, block, execution))
        if not execution.replayed:
            self._monitor.begins(call, None if execution.lease is None else execution.lease.expires_at)
        return None

    async def _leave(
        self, call: Call, block: BlockOf, execution: Execution, error: BaseException | None
    ) -> asyncio.CancelledError | None:
        """Come to the body's end, and leave its block. A cancellation passes on to the other block."""
        CALL.set(call)
        error = await self._finish(call, execution) if error is None else error
        if isinstance(error, asyncio.CancelledError) and not execution.replayed:
            self._monitor.body_ends(call, "cancelled")
        left = now()
        try:
            await block.__aexit__(None if error is None else type(error), error, None)
            outcome = execution.result if error is None else error
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - judged by the rules
            outcome = raised
        self._end(call, outcome)
        if not isinstance(outcome, asyncio.CancelledError):
            return None
        self._cancelled(left)
        return outcome

    async def _finish(self, call: Call, execution: Execution) -> BaseException | None:
        if execution.replayed:
            return None
        try:
            for pause in call.script.pauses:
                await asyncio.sleep(pause)
            if Execution.current() is not (self._held[-1][2] if self._held else execution):
                self._monitor.breaks(f"{call.name} is in its block, which is not the current one")
            if execution.lost:
                self._monitor.body_ends(call, "cancelled")  # its task was on its way out of the other block
            else:
                execution.complete(self._workload.come_to(call))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as the block is told
            return error
        return None

    def _cancelled(self, at: float | None) -> None:
        """Note that the bodies of other blocks ended: they did nothing while a block was entered, or left."""
        for other, _, execution in self._held:
            if not execution.replayed:
                self._monitor.body_ends(other, "cancelled", at=at)

    def _end(self, call: Call, outcome: object) -> None:
        """Note what a block came to. A lost lease of the other one cancels both."""
        if isinstance(outcome, asyncio.CancelledError) and call.cancelled_at is None:
            if not any(execution.lost for _, _, execution in self._held):
                self._monitor.breaks(f"{call.name} was cancelled by nobody")
            call.cancelled_at = now()
        self._monitor.ends(call, outcome)


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
