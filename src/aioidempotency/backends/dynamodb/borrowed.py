"""What the lean transport takes from inside an aiobotocore client. Nothing else of the library touches these parts.

The client may also be botocore's own, in the beginning of a process (`early`). Its parts are of the same names, and
answer at once where those of aiobotocore must be awaited.

Endpoint rules, credentials, TLS settings, time limits, the judgement on retries with its quota, headers and parsers are
the client's own: the library states none of AWS's rules again but the signature. botocore calls none of these parts
public. So `obstacle` says why a client cannot be served, a missing part included, and the transport then falls back to
the client. `tests/transport/test_borrowed.py` names each part, and fails where a new version has changed it.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache, partial
from inspect import isawaitable
from types import FunctionType, MethodType
from typing import Any, Final, cast, final
from urllib.parse import quote, urlsplit

from aiobotocore import __version__ as aiobotocore_version
from botocore.auth import SIGNED_HEADERS_BLACKLIST
from botocore.awsrequest import HeadersDict
from botocore.exceptions import NoCredentialsError
from botocore.hooks import first_non_none_response
from botocore.httpsession import URLLib3Session, get_cert_path
from botocore.parsers import create_parser
from botocore.signers import RequestSigner
from botocore.utils import normalize_url_path

from aioidempotency.backends.dynamodb import early
from aioidempotency.backends.dynamodb.configuration import KEEP
from aioidempotency.backends.dynamodb.connections import Origin, Response
from aioidempotency.backends.dynamodb.early import EarlyClient
from aioidempotency.backends.dynamodb.signature import Credentials, Signer

OPERATIONS: Final = (
    "GetItem",
    "PutItem",
    "UpdateItem",
    "DeleteItem",
    "Query",
    "TransactWriteItems",
    "TransactGetItems",
    "BatchExecuteStatement",
    "BatchGetItem",
)
"""The requests that a transport sends."""

_EVENTS: Final = (
    "provide-client-params",
    "before-parameter-build",
    "before-endpoint-resolution",
    "before-call",
    "request-created",
    "choose-signer",
    "before-sign",
    "before-send",
    "response-received",
    "before-parse",
    "needs-retry",
    "after-call",
    "after-call-error",
)
"""botocore's events of one call."""

_KNOWN: Final = frozenset(
    {
        # A token for transactions: the library makes its own.
        "botocore.handlers.generate_idempotent_uuid",
        "botocore.handlers.add_recursion_detection_header",
        "botocore.handlers.add_retry_headers",
        # They concern other services, and settings that `obstacle` looks at by itself.
        "botocore.handlers._handle_request_validation_mode_member",
        "botocore.handlers.inject_api_version_header_if_needed",
        "botocore.handlers.set_operation_specific_signer",
        "botocore.handlers._set_auth_scheme_preference_signer",
        "botocore.discovery.block_endpoint_discovery_required_operations",
        "aiobotocore.signers.AioRequestSigner.handler",
        "botocore.signers.RequestSigner.handler",
        "botocore.useragent.UserAgentString.rebuild_and_replace_user_agent_handler",
        # The retries of the standard mode, which `Borrowed.is_to_repeat` asks.
        "aiobotocore.retries.standard.AioRetryHandler.needs_retry",
        "botocore.retries.standard.RetryHandler.needs_retry",
        "botocore.retries.standard.RetryQuotaChecker.release_retry_quota",
        "botocore.retries.standard.MaxAttemptsSeeder.seed_max_attempts",
        # An import of Powertools registers this hook for all sessions. The hook only adds to the user agent.
        "aws_lambda_powertools.shared.user_agent._create_feature_function.<locals>.add_powertools_feature",
    }
)
"""The hooks of a client that nobody has changed. The lean transport does what botocore's do."""

CALLED: Final = {
    "client": ("_make_api_call", "_make_request", "_convert_to_request_dict", "_resolve_endpoint_ruleset"),
    "endpoint": (
        "make_request",
        "_send_request",
        "create_request",
        "prepare_request",
        "_send",
        "_needs_retry",
        "_update_retries_context",
    ),
    "session": ("send", "_build_ssl_contexts"),
    "signer": ("handler", "sign", "get_auth_instance"),
}
"""The methods that a call of the client passes, or that are called here. Tracing libraries wrap one or several."""

READ: Final = {
    "client": ("_service_model", "exceptions", "meta"),
    "endpoint": ("http_session",),
    "session": ("_proxy_config", "_cert_file", "_connector_args"),
    "signer": ("_credentials", "_region_name", "_signing_name", "_signature_version"),
    "emitter": ("_handlers", "_lookup_cache"),
}
"""The attributes that are read here."""

CALLED_EARLY: Final = {**CALLED, "session": ("send", "_get_ssl_context")}
READ_EARLY: Final = {**READ, "session": ("_proxy_config", "_cert_file", "_verify")}
"""The same of botocore's own client."""

_IN_PATHS: Final = "/%:@!$&'()*+,;=~"
"""The characters of a path that are sent as they are. A space would end the path."""

_SERVED_ARGUMENTS: Final = {"keepalive_timeout"}
"""The settings in `connector_args=` that the lean transport knows."""


@final
class Route:
    """What all requests of one operation on one table have in common."""

    __slots__ = ("members", "model", "origin", "signer")

    def __init__(self, origin: Origin, signer: Signer, model: Any) -> None:
        self.origin = origin
        self.signer = signer
        self.model = model
        self.members: AbstractSet[str] = frozenset(model.output_shape.members)


def obstacle(client: Any) -> str | None:
    """Say why the lean transport cannot serve a client. None if nothing is in the way."""
    is_early = isinstance(client, EarlyClient)
    if is_early and early.is_over():
        return early.OVER
    try:
        parts = parts_of(client.inner if is_early else client)
        for owner, names in (READ_EARLY if is_early else READ).items():
            for name in names:
                getattr(parts[owner], name)
        return next(_obstacles_early(parts) if is_early else _obstacles(parts), None)
    except (AttributeError, KeyError, TypeError) as error:
        return f"aiobotocore {aiobotocore_version} is another inside than the library knows ({type(error).__name__})"


def _obstacles(parts: Mapping[str, Any]) -> Iterator[str]:
    from aiobotocore.httpsession import AIOHTTPSession  # noqa: PLC0415 - the client is there, so it is loaded
    from aiobotocore.signers import AioRequestSigner  # noqa: PLC0415 - the same

    session = parts["session"]
    kind: type = type(session)
    if kind is not AIOHTTPSession:
        yield f"the client sends by another HTTP session ({kind.__name__})"
        return
    if unserved := sorted(set(session._connector_args) - _SERVED_ARGUMENTS):  # noqa: SLF001 - this file's purpose
        yield f"connector_args= has settings of aiohttp ({', '.join(unserved)})"
    yield from _obstacles_of_both(parts, CALLED, AioRequestSigner)


def _obstacles_early(parts: Mapping[str, Any]) -> Iterator[str]:
    if type(parts["session"]) is not URLLib3Session:
        yield "the client sends by another HTTP session"
        return
    yield from _obstacles_of_both(parts, CALLED_EARLY, RequestSigner)


def _obstacles_of_both(
    parts: Mapping[str, Any], called: Mapping[str, tuple[str, ...]], kind_of_signer: type
) -> Iterator[str]:
    client, session, signer = parts["client"], parts["session"], parts["signer"]
    if session._proxy_config.proxy_url_for(client.meta.endpoint_url):  # noqa: SLF001 - this file's purpose
        yield "requests go through a proxy"
    if session._cert_file:  # noqa: SLF001 - the same
        yield "a client certificate is set"
    version = signer._signature_version  # noqa: SLF001 - the same
    if type(signer) is not kind_of_signer or version != "v4":
        yield "requests are signed in another way than by Signature Version 4"
    if (mode := client.meta.config.retries["mode"]) != "standard":
        yield f"the retry mode is {mode}"
    wrapped = [
        name for owner, names in called.items() for name in names if not _is_genuine(getattr(parts[owner], name))
    ]
    if wrapped:
        yield f"somebody has wrapped {', '.join(wrapped)}, as tracing libraries do"
    if found := sorted(_foreign_hooks(client.meta.events)):
        yield f"event hooks are registered ({', '.join(found)})"


def parts_of(client: Any) -> dict[str, Any]:
    """Find the objects that `CALLED` and `READ` name."""
    endpoint = client._endpoint  # noqa: SLF001 - this file's purpose
    return {
        "client": client,
        "endpoint": endpoint,
        "session": endpoint.http_session,
        "signer": client._request_signer,  # noqa: SLF001 - the same
        "emitter": client.meta.events._emitter,  # noqa: SLF001 - the same
    }


def _is_genuine(method: Any) -> bool:
    """Tell whether a method is aiobotocore's or botocore's own, and not a wrapper.

    Wrappers copy names and modules, and proxies copy attributes. The file of the code cannot be copied.
    """
    if type(method) is not MethodType:
        return False
    function: Any = method.__func__
    while function is not None:
        if type(function) is not FunctionType or not _is_theirs(function.__code__.co_filename):
            return False
        function = function.__dict__.get("__wrapped__")
    return True


@lru_cache
def _is_theirs(file: str) -> bool:
    parts = file.replace("\\", "/").split("/")
    return bool({"aiobotocore", "botocore"} & set(parts[:-1]))


def _foreign_hooks(events: Any) -> set[str]:
    """Name the hooks of a call that are neither botocore's nor the library's."""
    tree = events._emitter._handlers  # noqa: SLF001 - this file's purpose
    found = (
        hook
        for event in _EVENTS
        for operation in OPERATIONS
        for hook in tree.prefix_search(f"{event}.dynamodb.{operation}")
    )
    names = {_name(hook) for hook in found}
    return {name for name in names - _KNOWN if not name.startswith("aioidempotency.backends.dynamodb.")}


def _name(hook: Any) -> str:
    # A partial or a callable object has no name. Its class has.
    named = hook if hasattr(hook, "__qualname__") else type(hook)
    return f"{named.__module__}.{named.__qualname__}"


@final
class Borrowed:
    """The parts of one client. Made for a client without an obstacle.

    Attributes:
        credentials: Returns the credentials of this instant. Refreshable ones are refreshed as the client refreshes
            them. Raises `NoCredentialsError` if there are none.
        has_changed: Tells whether somebody may have wrapped the client, or registered a hook, since it was looked at.
            Every call asks.
        connect_timeout: Seconds, or None for no limit.
        read_timeout: Seconds, or None for no limit.
        keep: Seconds that an idle connection is kept.
        limit: The most connections.
    """

    def __init__(self, given: Any) -> None:
        is_early = isinstance(given, EarlyClient)
        self._client = client = given.inner if is_early else given
        self._endpoint = client._endpoint  # noqa: SLF001 - this file's purpose
        self._session = session = self._endpoint.http_session
        self._signer = client._request_signer  # noqa: SLF001 - the same
        config = client.meta.config
        self.connect_timeout: float | None = config.connect_timeout
        self.read_timeout: float | None = config.read_timeout
        self.limit: int = config.max_pool_connections
        self.keep: float = KEEP if is_early else session._connector_args["keepalive_timeout"]  # noqa: SLF001 - the same
        self.credentials: Callable[[], Coroutine[Any, Any, Credentials]] = (
            self._credentials_at_hand if is_early else self._credentials_fetched
        )
        self.has_changed: Callable[[], bool] = early.is_over if is_early else self._has_changed
        self._needs_retry = self._asked_early if is_early else self._endpoint._needs_retry  # noqa: SLF001 - the same
        self._answered = _Answered if is_early else _AnsweredLater
        self._build_tls: Callable[[], ssl.SSLContext] = partial(_tls_early if is_early else _tls, session)
        emitter = client.meta.events._emitter  # noqa: SLF001 - the same
        self._emitter = emitter
        self._seen = emitter._lookup_cache  # noqa: SLF001 - the same
        self._call = client._make_api_call.__func__  # noqa: SLF001 - the same
        handlers = emitter._handlers  # noqa: SLF001 - the same
        self._after_call = tuple(handlers.prefix_search("after-call.dynamodb.PutItem"))
        self._context: ssl.SSLContext | None = None
        self._building = asyncio.Lock()

    def _has_changed(self) -> bool:
        # The emitter replaces its cache when a hook is registered.
        call = self._client._make_api_call  # noqa: SLF001 - this file's purpose
        return (
            type(call) is not MethodType
            or call.__func__ is not self._call
            or self._emitter._lookup_cache is not self._seen  # noqa: SLF001 - the same
        )

    async def _credentials_at_hand(self) -> Credentials:
        return cast("Credentials", self._signer._credentials.get_frozen_credentials())  # noqa: SLF001 - this file's purpose

    async def _credentials_fetched(self) -> Credentials:
        found = self._signer._credentials  # noqa: SLF001 - this file's purpose
        if found is None:
            raise NoCredentialsError
        return cast("Credentials", await found.get_frozen_credentials())

    async def tls(self) -> ssl.SSLContext:
        """Return the TLS settings that the client would use: private authorities, or no verification."""
        async with self._building:
            if (context := self._context) is None:
                # It reads files.
                self._context = context = await asyncio.to_thread(self._build_tls)
            return context

    async def route(self, operation: str, parameters: Mapping[str, Any]) -> Route | str:
        """Find the endpoint, the headers and the region of an operation's requests, by the client's endpoint rules.

        Returns:
            The route, or why the lean transport cannot take it.
        """
        client = self._client
        model = client._service_model.operation_model(operation)  # noqa: SLF001 - this file's purpose
        context: dict[str, Any] = {
            "client_region": client.meta.region_name,
            "client_config": client.meta.config,
            "has_streaming_input": False,
            "auth_type": model.resolved_auth_type,
            "unsigned_payload": model.unsigned_payload,
            "auth_options": client._service_model.metadata.get("auth"),  # noqa: SLF001 - the same
        }
        url, more, properties = await _settled(client._resolve_endpoint_ruleset(model, parameters, context))  # noqa: SLF001 - the same
        if properties:
            context["endpoint_properties"] = properties
        made = await _settled(client._convert_to_request_dict(parameters, model, url, context, more))  # noqa: SLF001 - the same
        if context["auth_type"] not in {None, "v4"} or model.unsigned_payload:
            return "requests are signed in another way than by Signature Version 4"
        parts = urlsplit(made["url"])
        if parts.query or parts.username is not None or parts.hostname is None:
            return "the endpoint has a query or a user name"
        secure = parts.scheme == "https"
        usual = 443 if secure else 80
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        signing = context.get("signing", {})
        signer = Signer(
            host=host if parts.port in {None, usual} else f"{host}:{parts.port}",
            path=quote(parts.path or "/", safe=_IN_PATHS),
            canonical_path=quote(normalize_url_path(parts.path), safe="/~"),
            region=signing.get("region") or self._signer._region_name,  # noqa: SLF001 - the same
            service=signing.get("signing_name") or self._signer._signing_name,  # noqa: SLF001 - the same
            headers={name: _text(value) for name, value in made["headers"].items()},
            unsigned=frozenset(SIGNED_HEADERS_BLACKLIST),
        )
        return Route(Origin(parts.hostname, parts.port or usual, secure), signer, model)

    async def is_to_repeat(
        self,
        attempts: int,
        route: Route,
        context: dict[str, Any],
        *,
        response: Response | None = None,
        parsed: Mapping[str, Any] | None = None,
        error: Exception | None = None,
    ) -> bool:
        """Ask the client's retry handler whether to send a request again, and wait as long as the handler says.

        The handler counts attempts, takes from the quota that it shares with the client, and notes in `parsed` why it
        does not repeat.

        Args:
            context: What the handler remembers of a call.
        """
        context.setdefault("retries", {"attempt": attempts})
        answered = None if response is None else (self._answered(response), parsed)
        request = {"context": context}
        again: bool = await self._needs_retry(attempts, route.model, request, answered, error)
        if again:
            context.setdefault("client_config", self._client.meta.config)
            self._endpoint._update_retries_context(context, attempts + 1, answered)  # noqa: SLF001 - this file's purpose
        return again

    async def _asked_early(
        self, attempts: int, model: Any, request: Mapping[str, Any], answered: object, error: Exception | None
    ) -> bool:
        """Ask the retry handler of botocore's own client, as its endpoint does, which then sleeps in the event loop."""
        responses = self._client.meta.events.emit(
            f"needs-retry.dynamodb.{model.name}",
            response=answered,
            endpoint=self._endpoint,
            operation=model,
            attempts=attempts,
            caught_exception=error,
            request_dict=request,
        )
        pause = first_non_none_response(responses)
        if pause is None or pause is False:
            return False
        await asyncio.sleep(pause)
        return True

    def succeeded(self, context: Mapping[str, Any]) -> None:
        """Give to the retry quota what a success gives."""
        for each in self._after_call:
            each(context=context, http_response=_SUCCESS)

    def error(self, parsed: Mapping[str, Any], operation: str) -> Exception:
        """Make the client's exception for an error of the service."""
        kind = self._client.exceptions.from_code(parsed["Error"]["Code"])
        return cast("Exception", kind(parsed, operation))

    def error_members(self, code: str) -> AbstractSet[str]:
        """Name the members that the service's model gives to an error."""
        shape = self._client._service_model.shape_for_error_code(code)  # noqa: SLF001 - this file's purpose
        return frozenset() if shape is None else shape.members.keys()

    def parsed(self, body: bytes, route: Route, code: str | None = None) -> Mapping[str, Any]:
        """Read an answer, or the members of an error, by botocore's parser."""
        shape = (
            route.model.output_shape if code is None else self._client._service_model.shape_for_error_code(code)  # noqa: SLF001 - this file's purpose
        )
        if shape is None:
            return {}
        parser = create_parser(self._client._service_model.resolved_protocol)  # noqa: SLF001 - the same
        found: dict[str, Any] = parser.parse({"body": body, "headers": {}, "status_code": 200}, shape)
        found.pop("ResponseMetadata")
        return found


def retry_header(context: Mapping[str, Any]) -> str:
    """Write the value of the header `amz-sdk-request`, in which the service counts attempts."""
    retries: Mapping[str, object] = context.get("retries", {"attempt": 1})
    return "; ".join(f"{name}={retries[name]}" for name in ("ttl", "attempt", "max") if name in retries)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


async def _settled(found: Any) -> Any:
    """Return an answer of a client. botocore's own answers at once, and aiobotocore's is to be awaited."""
    return await found if isawaitable(found) else found


def _tls(session: Any) -> ssl.SSLContext:
    """Build the TLS settings of aiobotocore's client."""
    context, _ = session._build_ssl_contexts(None)  # noqa: SLF001 - this file's purpose
    return cast("ssl.SSLContext", context)


def _tls_early(session: Any) -> ssl.SSLContext:
    """Build the TLS settings of botocore's own client, with the host's name checked here and not by urllib3."""
    context: ssl.SSLContext = session._get_ssl_context()  # noqa: SLF001 - this file's purpose
    if verify := session._verify:  # noqa: SLF001 - the same
        context.check_hostname = True
        if (authorities := get_cert_path(verify)) is not None:
            context.load_verify_locations(authorities)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Answered:
    """A response, in the form of botocore."""

    def __init__(self, response: Response) -> None:
        self.status_code = response.status
        self.headers = HeadersDict(
            {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
        )
        self._body = response.body

    @property
    def content(self) -> Any:
        """The body. A retry handler reads the body, to check the CRC32."""
        return self._body


@final
class _AnsweredLater(_Answered):
    """A response, in the form of aiobotocore: its retry handler awaits the body."""

    @property
    def content(self) -> Any:
        return self._later()

    async def _later(self) -> bytes:
        return self._body


_SUCCESS: Final = _Answered(Response(200, [], b""))
