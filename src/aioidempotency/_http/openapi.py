"""The header and the refusals in an OpenAPI document. Pure: the document is a dict, changed in place."""

from collections.abc import Iterator
from typing import Any, Final

from aioidempotency._http.options import HttpOptions
from aioidempotency._http.responses import TITLES, Code

NOTE: Final = "x-aioidempotency"
"""Marks the parameter of the header in the document that FastAPI writes, and tells the options of its route."""

PROBLEM: Final = "IdempotencyProblem"
METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

_SCHEMA: Final[dict[str, Any]] = {
    "title": PROBLEM,
    "type": "object",
    "description": "A problem document (RFC 9457). `code` is stable.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(TITLES)},
    },
}

_DESCRIPTION: Final = (
    "A key of the client's own making, new for each operation: a UUID, for example. A repetition of a request with its "
    "key gets the first response, and changes nothing."
)


def note(options: HttpOptions) -> dict[str, Any]:
    """Make the note of a route's options for `documented`."""
    codes: tuple[Code, ...] = (
        "idempotency_key_missing" if options.required else "idempotency_key_invalid",
        "idempotency_request_in_progress",
        "idempotency_result_unavailable",
        "idempotency_body_too_large",
        "idempotency_key_reused",
        "idempotency_store_unavailable",
    )
    refusals: dict[str, str] = {}
    for code in codes:
        # Two refusals may share a status, and a status has one description.
        refusals.setdefault(str(options.problem(code).status), TITLES[code])
    return {NOTE: {"required": options.required, "methods": sorted(options.methods), "refusals": refusals}}


def documented(document: dict[str, Any]) -> dict[str, Any]:
    """Write header and refusals into the operations that have a note, and remove the notes."""
    for method, operation in _operations(document):
        for parameter in operation.get("parameters", []):
            schema = parameter.get("schema", {})
            if (found := schema.pop(NOTE, None)) is None:
                continue
            if method.upper() not in found["methods"]:
                operation["parameters"].remove(parameter)
                break
            parameter["required"] = found["required"]
            parameter["description"] = _DESCRIPTION
            parameter["schema"] = {"type": "string", "minLength": 1, "title": parameter["name"]}
            _refuse(operation, found["refusals"])
            document.setdefault("components", {}).setdefault("schemas", {})[PROBLEM] = _SCHEMA
            break
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in document.get("paths", {}).values():
        for method in METHODS:
            if method in path:
                yield method, path[method]


def _refuse(operation: dict[str, Any], refusals: dict[str, str]) -> None:
    """Add the refusals to an operation. A status that the route has already gets a second media type."""
    responses = operation.setdefault("responses", {})
    for status, title in refusals.items():
        response = responses.setdefault(status, {"description": title})
        content = response.setdefault("content", {})
        content["application/problem+json"] = {"schema": {"$ref": f"#/components/schemas/{PROBLEM}"}}
