"""JMESPath expressions, beyond dotted names: parsed, searched for paths and built keys, and evaluated.

Only this module needs JMESPath's own package, and `_selection` imports the module at the first such expression. A
program whose keys are dotted names, callables or all arguments never loads the package.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jmespath
import jmespath.exceptions
import jmespath.functions
import jmespath.visitor

from aioidempotency.exceptions import ConfigurationError

Node = Mapping[str, Any]
"""A node of a parsed JMESPath expression."""


def compiled(expression: str, subject: str) -> Any:
    """Parse an expression.

    Args:
        subject: The purpose of the expression, for messages.

    Raises:
        ConfigurationError: The expression is no JMESPath.
    """
    try:
        return jmespath.compile(expression)
    except jmespath.exceptions.JMESPathError as error:
        raise ConfigurationError(f"{subject}: {expression!r} is not a JMESPath expression: {error}") from error


def paths(node: Node) -> Iterator[tuple[str, ...]]:
    """Find the paths of an expression that begin at the arguments. An empty path stands for all arguments (`@`)."""
    match node["type"]:
        case "field":
            yield (node["value"],)
        case "current" | "identity":
            yield ()
        case "subexpression" | "pipe" | "index_expression" | "projection" | "value_projection" | "filter_projection":
            first, then = node["children"][0], node["children"][1:]
            # `@.a` and `@ | a` begin with `a`.
            if first["type"] in {"current", "identity"} and node["type"] in {"subexpression", "pipe"}:
                yield from paths({"type": node["type"], "children": then})
            else:
                for path in paths(first):
                    names = _names_of(then) if node["type"] == "subexpression" else ()
                    yield (*path, *names) if path else path
        # `&id` in `sort_by(orders, &id)` begins at an element, not at the arguments.
        case "expref" | "literal":
            return
        case _:
            for child in node["children"]:
                if isinstance(child, Mapping):
                    yield from paths(child)


def _names_of(nodes: list[Node]) -> tuple[str, ...]:
    """Read the plain names that continue a path."""
    names: list[str] = []
    for node in nodes:
        if node["type"] != "field":
            break
        names.append(node["value"])
    return tuple(names)


def dotted_names(node: Node) -> tuple[str, ...] | None:
    """Read the names of an expression like `order.id` or `headers."x-id"`. None for an expression with other parts."""
    nodes = node["children"] if node["type"] == "subexpression" else [node]
    names = _names_of(nodes)
    return names if len(names) == len(nodes) else None


def built(node: Node) -> Iterator[Node]:
    """Find the multi-selects (`[a, b]`, `{a: b}`) that make up the key: those in the last stage, outside of conditions."""
    match node["type"]:
        case "pipe" | "subexpression":
            yield from built(node["children"][-1])
        case "projection" | "value_projection" | "filter_projection" | "and_expression":
            yield from built(node["children"][1])
        # A comparison yields true or false, and a null inside is no part of the key.
        case "comparator" | "not_expression":
            return
        case kind:
            if kind in {"multi_select_list", "multi_select_dict"}:
                yield node
            for child in node["children"]:
                if isinstance(child, Mapping):
                    yield from built(child)


def _text(node: Node, position: str) -> str:
    """Name a part of a key: by its path in the expression if the path is plain, else by position."""
    if node["type"] == "key_val_pair":
        return f"{node['value']!r}"
    names = dotted_names(node)
    return position if names is None else f"{'.'.join(names)!r}"


class Interpreter(jmespath.visitor.TreeInterpreter):
    """Evaluates one expression on one call's arguments. `null_part` is the first null part of a built key."""

    def __init__(self, built: frozenset[int]) -> None:
        super().__init__(_OPTIONS)
        self._built_nodes = built
        self.null_part: str | None = None

    def visit_multi_select_list(self, node: Any, value: Any) -> Any:
        parts = super().visit_multi_select_list(node, value)
        return self._noted(node, parts, parts or ())

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        parts = super().visit_multi_select_dict(node, value)
        return self._noted(node, parts, (parts or {}).values())

    def _noted(self, node: Node, made: object, parts: Iterable[object]) -> object:
        # By identity, because an expression may hold equal nodes in several places.
        if self.null_part is None and id(node) in self._built_nodes:
            for position, (child, part) in enumerate(zip(node["children"], parts, strict=False)):
                if part is None:
                    self.null_part = _text(child, f"part {position + 1} of {len(node['children'])}")
                    break
        return made


class _PowertoolsFunctions(jmespath.functions.Functions):
    """The three functions that Powertools adds to JMESPath, with the same names."""

    @jmespath.functions.signature({"types": ["string"]})
    def _func_powertools_json(self, value: str) -> object:
        return json.loads(value)

    @jmespath.functions.signature({"types": ["string"]})
    def _func_powertools_base64(self, value: str) -> str:
        return base64.b64decode(value).decode()

    @jmespath.functions.signature({"types": ["string"]})
    def _func_powertools_base64_gzip(self, value: str) -> str:
        return gzip.decompress(base64.b64decode(value)).decode()


_OPTIONS = jmespath.Options(custom_functions=_PowertoolsFunctions())
