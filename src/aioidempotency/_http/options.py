"""The options of the HTTP front ends, validated once."""

import inspect
import re
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Final, Literal, Self, TypedDict, final

from msgspec import Struct

from aioidempotency._call import Execution
from aioidempotency._http import requests, responses
from aioidempotency._http.requests import Fingerprint, Headers, RequestFacts
from aioidempotency._http.responses import Code, HttpResponse, Policy, StoredResponse
from aioidempotency._options import Duration, Wait, one_of, whole_number
from aioidempotency._store import AsyncIdempotencyStore
from aioidempotency.events import LOGGER
from aioidempotency.exceptions import (
    ConfigurationError,
    IdempotencyError,
    InProgressError,
    LeaseLostError,
    MismatchError,
    MissingKeyError,
    ResultUnavailableError,
    StoreError,
)

NAMESPACE: Final = "http"
"""The namespace of the records of requests."""

DAY: Final = 86_400.0


@final
class Public(Enum):
    """The type of `PUBLIC`."""

    # The first part of the record's key, `[scope, key]`. No caller has an empty scope, so the parts cannot be confused.
    PUBLIC = ""

    def __repr__(self) -> str:
        return self.name


PUBLIC: Final = Public.PUBLIC
"""The scope of an endpoint whose callers share all keys: whoever knows a key gets the response to that key."""


class HttpSettings(TypedDict, total=False):
    """The keyword options of all front ends.

    Attributes:
        methods: The methods whose requests may have a key. A key on another method is ignored.
        header: The name of the header.
        required: Whether a request without a key is refused, with status 400.
        strict: Whether the header must hold a quoted string, as the draft demands.
        policy: The responses to store: `"terminal"`, `"stripe"`, `"success"`, or a function of status and headers.
        on_in_progress: The reaction to a duplicate of a running request: `"conflict"`, or `Wait(seconds)`.
        in_progress_status: The status for a duplicate of a running request.
        mismatch_status: The status for a key that was used with another request.
        retry_after: Seconds in the header `Retry-After`.
        retention: Seconds for which a stored response answers. The default is 24 hours.
        lease: Seconds of the lease, in place of the store's setting.
        max_request_body: The most bytes of a request with a key.
        max_response_body: The most bytes of a stored response.
        replay_header: The name of the header of replays. None adds no header.
        problem_type: The base URL of the problem documents.
        fingerprint: `"request"`, None, or a function of the request's facts and body.
        exclude_headers: Names of further response headers that are not stored.
    """

    methods: Collection[str]
    header: str
    required: bool
    strict: bool
    policy: Literal["terminal", "stripe", "success"] | Policy
    on_in_progress: Literal["conflict"] | Wait
    in_progress_status: int
    mismatch_status: int
    retry_after: int
    retention: Duration
    lease: Duration | None
    max_request_body: int
    max_response_body: int
    replay_header: str | None
    problem_type: str | None
    fingerprint: Literal["request"] | Fingerprint | None
    exclude_headers: Collection[str]


@final
class HttpOptions(Struct, frozen=True, kw_only=True):
    """Options shared by all requests to one front end, validated once. Names of headers are in lower case."""

    store: AsyncIdempotencyStore
    methods: frozenset[str] = frozenset({"POST", "PATCH"})
    header: bytes = b"idempotency-key"
    required: bool = False
    strict: bool = False
    policy: Policy = responses.POLICIES["terminal"]
    on_in_progress: Literal["raise"] | Wait = "raise"
    in_progress_status: int = 409
    mismatch_status: int = 422
    retry_after: int = 1
    retention: Duration = DAY
    lease: Duration | None = None
    max_request_body: int = 1024 * 1024
    max_response_body: int = 256 * 1024
    replay_header: bytes | None = b"idempotent-replayed"
    problem_type: str | None = None
    fingerprint: Fingerprint | None = requests.request_fingerprint
    excluded: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, store: AsyncIdempotencyStore, given: HttpSettings) -> Self:
        """Validate the options of a front end.

        Raises:
            ConfigurationError: An option makes no sense.
        """
        if unknown := given.keys() - HttpSettings.__annotations__.keys():
            raise ConfigurationError(f"unknown options: {', '.join(sorted(unknown))}")
        if not isinstance(store, AsyncIdempotencyStore):
            raise ConfigurationError(f"the first argument is a store: not {store!r}")
        replay_header = given.get("replay_header", "Idempotent-Replayed")
        named = None if replay_header is None else _header(replay_header, "replay_header")
        further = given.get("exclude_headers", ())
        if isinstance(further, str):
            raise ConfigurationError("exclude_headers= takes a collection of names: not one text")
        made = cls(
            store=store,
            methods=_methods(given.get("methods", ("POST", "PATCH"))),
            header=_header(given.get("header", "Idempotency-Key"), "header"),
            required=given.get("required", False),
            strict=given.get("strict", False),
            policy=_policy(given.get("policy", "terminal")),
            on_in_progress=_reaction(given.get("on_in_progress", "conflict")),
            in_progress_status=_status(given.get("in_progress_status", 409), "in_progress_status"),
            mismatch_status=_status(given.get("mismatch_status", 422), "mismatch_status"),
            retry_after=whole_number(given.get("retry_after", 1), "retry_after"),
            retention=given.get("retention", DAY),
            lease=given.get("lease"),
            max_request_body=whole_number(given.get("max_request_body", 1024 * 1024), "max_request_body"),
            max_response_body=whole_number(given.get("max_response_body", 256 * 1024), "max_response_body"),
            replay_header=named,
            problem_type=_base_url(given.get("problem_type")),
            fingerprint=_fingerprint(given.get("fingerprint", "request")),
            excluded=frozenset(
                # An upstream service may have marked its own replay. A replay of ours is marked once.
                [*(_header(name, "exclude_headers") for name in further), *([named] if named else [])]
            ),
        )
        made.block(PUBLIC, "never entered", fingerprint=None)  # checks retention, lease and `Wait`
        return made

    def block(self, caller: str | Public, key: str, *, fingerprint: object) -> AbstractAsyncContextManager[Execution]:
        """Open the store's block for one request."""
        return self.store.execute(
            [caller, key],
            fingerprint=fingerprint,
            lease=self.lease,
            retention=self.retention,
            on_in_progress=self.on_in_progress,
            namespace=NAMESPACE,
            result_type=StoredResponse,
        )

    def read_key(self, values: list[bytes]) -> str | HttpResponse:
        """Read the key from the values of the header, or make the refusal."""
        if not values:
            return self.problem("idempotency_key_missing")
        key = requests.read_key(values, strict=self.strict)
        return key if isinstance(key, str) else self.problem("idempotency_key_invalid", detail=key.reason)

    def fingerprint_of(self, facts: RequestFacts, body: bytes) -> object:
        """Make the fingerprint of a request. None compares nothing."""
        if self.fingerprint is None:
            return None
        if self.fingerprint is requests.request_fingerprint:
            return requests.request_fingerprint(facts, body)
        return requests.custom_fingerprint(self.fingerprint, facts, body)

    def stores(self, status: int, headers: Headers) -> bool:
        """Ask the policy whether a response is stored."""
        try:
            return self.policy(status, headers)
        except Exception as error:  # noqa: BLE001 - the policy may be the user's
            # The handler has run. Without a record, a repetition would run the handler again.
            LOGGER.error("the policy= failed with %s, and the response is stored", type(error).__name__)
            return True

    def problem(self, code: Code, *, detail: str | None = None) -> HttpResponse:
        """Make a problem document with these options."""
        status = responses.STATUSES[code]
        retry_after = None
        match code:
            case "idempotency_request_in_progress":
                status, retry_after = self.in_progress_status, self.retry_after
            case "idempotency_key_reused":
                status = self.mismatch_status
            case "idempotency_store_unavailable":
                retry_after = self.retry_after
            case _:
                pass
        return responses.problem(
            code, status=status, base_url=self.problem_type, detail=detail, retry_after=retry_after
        )

    def refusal(self, error: IdempotencyError) -> HttpResponse | None:
        """Make the problem document of an error of the store. None for an error that is no client's business."""
        if isinstance(error, ConfigurationError) and error.temporary:
            # A missing permission or table is mended on the server. The client's part is to come back.
            LOGGER.error("a request with an idempotency key is refused with status 503: %s", error)
            return self.problem("idempotency_store_unavailable")
        for kind, code in _REFUSALS:
            if isinstance(error, kind):
                return self.problem(code)
        return None


_REFUSALS: Final[tuple[tuple[type[IdempotencyError], Code], ...]] = (
    (InProgressError, "idempotency_request_in_progress"),
    (LeaseLostError, "idempotency_request_in_progress"),
    (MismatchError, "idempotency_key_reused"),
    (ResultUnavailableError, "idempotency_result_unavailable"),
    (MissingKeyError, "idempotency_key_missing"),
    (StoreError, "idempotency_store_unavailable"),
)
"""The errors of a store that are the client's business, and their codes."""

REFUSED: Final = tuple(kind for kind, _ in _REFUSALS)
"""The classes of these errors."""


def check_caller(caller: object) -> str | Public:
    """Require a scope that tells callers apart.

    Raises:
        ConfigurationError: The scope is empty, or no text.
    """
    if caller is PUBLIC or (isinstance(caller, str) and caller):
        return caller
    # Without the value: the scope of a caller is a secret like the key.
    found = "an empty text" if caller == "" else type(caller).__name__
    raise ConfigurationError(
        f"scope= must give a text that is not empty, and gave {found}: callers without a scope would share each "
        "other's responses; refuse such requests in your authentication, or give scope=PUBLIC"
    )


def check_scope(scope: object) -> None:
    """Require a decision about the scope.

    Raises:
        ConfigurationError: There is no scope, or the scope cannot be called.
    """
    if scope is None:
        raise ConfigurationError(
            "scope= is missing: without a scope, a client that sends the key of another client gets that client's "
            "response. Give a function that names the authenticated caller, or scope=PUBLIC if all callers may share "
            "all responses"
        )
    if scope is not PUBLIC and not callable(scope):
        raise ConfigurationError(f"scope= takes a function that names the caller, or PUBLIC: not {scope!r}")


async def name_of_caller(scope: Callable[..., str | Awaitable[str]] | Public, request: object) -> str | Public:
    """Ask for the caller's scope. Whatever the function raises passes on unchanged."""
    if isinstance(scope, Public):
        return scope
    named = scope(request)
    return check_caller(await named if inspect.isawaitable(named) else named)


_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _header(name: object, option: str) -> bytes:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ConfigurationError(f"{option}= takes the name of a header: not {name!r}")
    return name.lower().encode()


def _methods(given: Collection[str]) -> frozenset[str]:
    if isinstance(given, str) or not all(isinstance(name, str) and _TOKEN.fullmatch(name) for name in given):
        raise ConfigurationError(f"methods= takes a collection of methods: not {given!r}")
    return frozenset(name.upper() for name in given)


def _policy(given: str | Policy) -> Policy:
    if callable(given):
        return given
    one_of(given, "policy", tuple(responses.POLICIES))
    return responses.POLICIES[given]


def _reaction(given: str | Wait) -> Literal["raise"] | Wait:
    if isinstance(given, Wait):
        return given
    if given != "conflict":
        raise ConfigurationError(f"on_in_progress= is 'conflict' or Wait(seconds): not {given!r}")
    return "raise"


def _status(given: int, name: str) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 400 <= given < 600:  # noqa: PLR2004 - errors
        raise ConfigurationError(f"{name}= takes a status of errors, 400 to 599: not {given!r}")
    return given


def _base_url(given: str | None) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not given:
        raise ConfigurationError(f"problem_type= takes the base URL of the problem documents: not {given!r}")
    return given if given.endswith(("/", "#", "=", ":")) else f"{given}/"


def _fingerprint(given: str | Fingerprint | None) -> Fingerprint | None:
    if given is None or callable(given):
        return given
    if given != "request":
        raise ConfigurationError(f"fingerprint= is 'request', None or a function: not {given!r}")
    return requests.request_fingerprint
