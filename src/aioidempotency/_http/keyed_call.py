"""One request with a key, from its claim to the last byte of its response.

The store's own block does the work. This module says how a response ends the block.

Invariants:

1. The block is left before the last byte of the response leaves: a client that has the whole response, and repeats the
   request, meets the finished record.
2. A response that began and is not stored whole leaves a tombstone. Its handler has run, and must not run again.
3. A response that the policy does not store, and a handler that fails before its response, give the key back.
"""

from contextlib import AbstractAsyncContextManager
from typing import final

from aioidempotency._call import Execution
from aioidempotency._http import responses
from aioidempotency._http.options import HttpOptions, Public
from aioidempotency._http.responses import SERVER_ERROR, HttpResponse, StoredResponse
from aioidempotency._results import Unstorable
from aioidempotency.exceptions import IdempotencyError


class ResponseNotStored(Exception):  # noqa: N818 - the store never sees it raised: it says how a block is left
    """Leaves a block without a result, so that the key is given back."""


@final
class KeyedCall:
    """A request that has claimed its key."""

    def __init__(
        self, options: HttpOptions, block: AbstractAsyncContextManager[Execution], execution: Execution
    ) -> None:
        self.options = options
        self._block = block
        self._execution = execution

    async def store(self, response: HttpResponse) -> HttpResponse | None:
        """Store a response that the policy stores. Returns the refusal to send instead, if the lease is lost."""
        if len(response.body) > self.options.max_response_body:
            return await self.bury("the response exceeds max_response_body")
        return await self._complete(responses.stored_form(response, self.options.excluded))

    async def bury(self, reason: str) -> HttpResponse | None:
        """Leave a tombstone: the handler has run, and its response is not stored. Returns a refusal like `store`."""
        return await self._complete(Unstorable(reason))

    async def release(self, error: BaseException | None = None) -> HttpResponse | None:
        """Give the key back. Returns a refusal if the lease is lost, and the error is its cancellation."""
        left_by = ResponseNotStored() if error is None else error
        try:
            await self._block.__aexit__(type(left_by), left_by, left_by.__traceback__)
        except IdempotencyError as lost:
            return self._refusal(lost)
        return None

    async def fail(self, error: BaseException) -> HttpResponse | None:
        """End the call of a handler that raised before its response. Returns a refusal like `release`."""
        # The policy decides over the response that the server makes of the exception. A cancellation is no response.
        if isinstance(error, Exception) and self.options.stores(SERVER_ERROR.status, SERVER_ERROR.headers):
            await self.store(SERVER_ERROR)
            return None
        return await self.release(error)

    async def _complete(self, result: StoredResponse | Unstorable) -> HttpResponse | None:
        self._execution.complete(result)
        try:
            await self._block.__aexit__(None, None, None)
        except IdempotencyError as error:
            return self._refusal(error)
        return None

    def _refusal(self, error: IdempotencyError) -> HttpResponse:
        if (refusal := self.options.refusal(error)) is None:
            raise error
        return refusal


async def claim(
    options: HttpOptions, caller: str | Public, key: str, *, fingerprint: object
) -> KeyedCall | HttpResponse:
    """Claim the key of a request. Returns the response of a replay or of a refusal if the handler must not run."""
    block = options.block(caller, key, fingerprint=fingerprint)
    try:
        execution = await block.__aenter__()
    except IdempotencyError as error:
        if (refusal := options.refusal(error)) is None:
            raise
        return refusal
    if not execution.replayed:
        return KeyedCall(options, block, execution)
    await block.__aexit__(None, None, None)
    stored: StoredResponse = execution.result  # type: ignore[assignment] # the block reads results as this type
    return responses.replay(stored, options.replay_header)
