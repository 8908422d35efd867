"""The configuration of the clients that the library opens: tuned for many small calls, with the caller's put over it.

The options are merged when a store is made, and a client's configuration is made of them when a client is opened:
aiobotocore's class of configurations loads aiohttp.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

from aioidempotency._version import __version__
from aioidempotency.backends.dynamodb.arguments import Config
from aioidempotency.backends.dynamodb.checks import is_a

if TYPE_CHECKING:
    from aiobotocore.config import AioConfig
    from botocore.config import Config as BotocoreConfig

KEEP: Final = 60
"""Seconds that an idle connection is kept, unless the caller sets another time."""

_OF_AIOBOTOCORE: Final = {"connector_args", "http_session_cls", "warm_up_loader_caches"}
"""The options that botocore does not know."""


@final
class Configuration:
    """The options of the clients of one backend.

    Parameter validation, and botocore's user agent, which is built twice in each call, take a fifth of the processor
    time of a call (477 instead of 613 microseconds, measured on two cores).

    Args:
        time_limit: Seconds for one operation, retries included.
        given: The caller's configuration.

    Raises:
        BotoCoreError: The two configurations contradict each other.
    """

    def __init__(self, time_limit: float, given: Config | None = None) -> None:
        self._options: dict[str, Any] = {
            "parameter_validation": False,
            "user_agent": f"aioidempotency/{__version__}",
            # botocore's ten connections would be a queue without a time limit.
            "max_pool_connections": 256,
            # Short enough for a second attempt within the time limit. botocore's own limit is 60 s.
            "connect_timeout": min(1.0, time_limit / 3),
            "read_timeout": min(3.0, time_limit / 3),
            # Not botocore's ten attempts in 25 s: the caller's time limit would end the call in the middle of a pause.
            "retries": {"mode": "standard", "total_max_attempts": 3},
            "connector_args": {"keepalive_timeout": KEEP},
        }
        self._is_plain = True
        if given is not None:
            self._options = _over_ours(self._options, given)
            self._is_plain = not is_a(given, "aiobotocore.config", "AioConfig")
            # Made for its checks: a configuration that cannot be used is told when the store is made.
            _ = self.plain() or self.aio()

    def aio(self) -> "AioConfig":
        """Make the configuration of a client of aiobotocore."""
        from aiobotocore.config import AioConfig  # noqa: PLC0415 - loads aiohttp

        return AioConfig(**self._options)

    def plain(self) -> "BotocoreConfig | None":
        """Make the same configuration for botocore alone. None if it is for aiobotocore."""
        from botocore.config import Config as BotocoreConfig  # noqa: PLC0415 - loads most of botocore

        if not self._is_plain:
            return None
        return BotocoreConfig(**{name: value for name, value in self._options.items() if name not in _OF_AIOBOTOCORE})


def tuned(time_limit: float) -> "AioConfig":
    """Make the configuration of a client of aiobotocore without a configuration of the caller's."""
    return Configuration(time_limit).aio()


def _over_ours(ours: Mapping[str, Any], given: Config) -> dict[str, Any]:
    """Put the caller's options over ours, member by member: one of `retries` leaves the others.

    `merge` of aiobotocore would take the caller's `retries` as a whole, and older versions ignore `connector_args`.
    """
    options, theirs = dict(ours), _options(given)
    # Two names of one setting, and botocore would take ours.
    if "max_attempts" in (theirs.get("retries") or {}):
        options["retries"] = {name: value for name, value in options["retries"].items() if name != "total_max_attempts"}
    return _over(options, theirs)


def _options(config: Any) -> dict[str, Any]:
    """List the options of a configuration that were set."""
    options = dict(config._user_provided_options)  # noqa: SLF001 - botocore tells it nowhere else
    # aiobotocore before version 3 does not count its own options among them, and fills in defaults.
    if is_a(config, "aiobotocore.config", "AioConfig"):
        usual = type(config)()
        set_ones = {
            name: value for name, value in config.connector_args.items() if usual.connector_args.get(name) != value
        }
        options.setdefault("connector_args", set_ones)
        options.setdefault("http_session_cls", config.http_session_cls)
    return options


def _over(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings, and the mappings inside. Theirs win."""
    nested = {
        name: _over(ours[name], value)
        for name, value in theirs.items()
        if isinstance(value, Mapping) and isinstance(ours.get(name), Mapping)
    }
    return {**ours, **theirs, **nested}
