"""What the service says instead of an answer, under the names that it uses."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

_NAMESPACE: Final = "com.amazonaws.dynamodb.v20120810#"
_TOO_MUCH: Final = (
    "The level of configured provisioned throughput for the table was exceeded. "
    "Consider increasing your provisioning level with the UpdateTable API."
)
_BUSY: Final = (
    "Throughput exceeds the current capacity of your table or index. DynamoDB is automatically scaling your table or "
    "index so please try again shortly. If exceptions persist, check if you have a hot key: "
    "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html"
)
Reason = dict[str, Any]
"""Why one action cancelled its transaction."""

NO_REASON: Final[Reason] = {"Code": "None"}
BUSY: Final[Reason] = {"Code": "ThrottlingError", "Message": _BUSY}


class ServiceError(Exception):
    """An exception of DynamoDB's API: its name, its message, and fields of its own. HTTP 400."""

    def __init__(self, name: str, message: str, **fields: object) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message
        self.fields = fields

    @property
    def body(self) -> dict[str, object]:
        """The JSON body of the answer."""
        return {"__type": _NAMESPACE + self.name, "message": self.message, **self.fields}


@final
class MisfitError(ServiceError):
    """A request that is well formed and does not fit the table, or what is stored.

    Inside a transaction the service reports it as the reason of its action.
    """

    def __init__(self, message: str) -> None:
        super().__init__("ValidationException", message)

    @property
    def reason(self) -> Reason:
        """The same as the reason of one action."""
        return {"Code": "ValidationError", "Message": self.message}


def invalid(message: str) -> ServiceError:
    """Refuse a request that no table could fit."""
    return ServiceError("ValidationException", message)


def malformed(message: str) -> ServiceError:
    """Refuse what is no request: JSON of other types than the API's."""
    return ServiceError("SerializationException", message)


def unmet(item: Mapping[str, Any] | None) -> ServiceError:
    """Refuse a conditional write; with `item`, show what was there."""
    shown = {} if item is None else {"Item": item}
    return ServiceError("ConditionalCheckFailedException", "The conditional request failed", **shown)


def unmet_reason(item: Mapping[str, Any] | None) -> Reason:
    """Refuse one action of a transaction; with `item`, show what was there."""
    reason = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
    return reason if item is None else {**reason, "Item": item}


def cancelled(reasons: Sequence[Reason]) -> ServiceError:
    """Cancel a transaction; there is one reason for each action, in their order."""
    codes = ", ".join(reason["Code"] for reason in reasons)
    message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
    return ServiceError("TransactionCanceledException", message, CancellationReasons=list(reasons))


def throttled(table_arn: str, kind: str) -> ServiceError:
    """Refuse a request because its partition is busy. `kind` is Write or Read."""
    reason = {"reason": f"Table{kind}KeyRangeThroughputExceeded", "resource": table_arn}
    return ServiceError("ProvisionedThroughputExceededException", _TOO_MUCH, ThrottlingReasons=[reason])
