"""Blocks around calls. What calls have in common is checked and read once; each call adds its key."""

from dataclasses import dataclass
from typing import Literal, Self, final

from aioidempotency._driver import Driver
from aioidempotency._executing import Executing, Manner
from aioidempotency._lease import time_left
from aioidempotency._settings import Duration, OnInProgress, Settings, check_errors, interval, one_of, patience


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Makes the blocks of calls that have all but their keys in common. Durations are seconds.

    Attributes:
        lease: Instead of the store's; None: the store's.
        retention: Instead of the store's; None: the store's.
        read_first: Instead of the store's; None: the store's.
        heartbeat: Seconds between renewals; None for no renewals.
    """

    driver: Driver
    settings: Settings
    manner: Manner
    lease: float | None
    retention: float | None
    read_first: bool | None
    heartbeat: float | None

    @classmethod
    def of(
        cls,
        driver: Driver,
        settings: Settings,
        *,
        lease: Duration | None,
        retention: Duration | None,
        heartbeat: bool | Duration,
        on_in_progress: OnInProgress,
        on_error: Literal["release", "hold"],
        store_errors: tuple[type[Exception], ...],
        read_first: bool | None,
    ) -> Self:
        """Read what users say of their calls.

        Raises:
            ConfigurationError: Something makes no sense.
        """
        one_of(on_error, "on_error", ("release", "hold"))
        check_errors(store_errors)
        own_lease = None if lease is None else settings.protected(lease)
        return cls(
            driver=driver,
            settings=settings,
            manner=Manner(patience=patience(on_in_progress), on_error=on_error, store_errors=store_errors),
            lease=own_lease,
            retention=None if retention is None else settings.kept(retention),
            read_first=read_first,
            heartbeat=interval(heartbeat, settings.terms.lease if own_lease is None else own_lease),
        )

    def open(self, key: object, *, fingerprint: object, namespace: str, result_type: object) -> Executing:
        """Make the block of one call. Inside a `deadline` there are no renewals."""
        attempt = self.settings.attempt(
            key,
            namespace=namespace,
            fingerprint=fingerprint,
            lease=self.lease,
            retention=self.retention,
            read_first=self.read_first,
        )
        heartbeat = self.heartbeat if time_left() is None else None
        return Executing(self.driver, attempt, self.manner, heartbeat=heartbeat, result_type=result_type)
