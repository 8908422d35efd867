"""Strategies as the command line has them: the calls that make them, and nothing else of Python."""

import ast
from collections.abc import Callable
from typing import Any, Final

from aioidempotency.exceptions import ConfigurationError
from aioidempotency.partitioning import HashBuckets, Partitioning, RandomBuckets, Reshard, Static, TimeBuckets

_STRATEGIES: Final[dict[str, Callable[..., Partitioning]]] = {
    made.__name__: made for made in (HashBuckets, RandomBuckets, Reshard, Static, TimeBuckets)
}
_EXAMPLES: Final = "HashBuckets(32), or Reshard(Static('idempotency#handler'), HashBuckets(32), 'prepare')"


def strategy(text: str) -> Partitioning:
    """Make a strategy from the call that makes it, as `layout show` prints it.

    Raises:
        ConfigurationError: It is no such call, or its arguments make no sense.
    """
    try:
        return _made(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ConfigurationError(f"{text!r} is no strategy: write {_EXAMPLES}") from error


def _made(node: ast.expr) -> Partitioning:
    """Evaluate a call of a strategy; its arguments are constants, or such calls."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise TypeError("no call of a name")
    if node.func.id == "CustomPartition":
        raise ConfigurationError(
            "CustomPartition takes a function, which no command line has: the store that has it writes the layout "
            "when it opens"
        )
    if node.func.id not in _STRATEGIES or any(each.arg is None for each in node.keywords):
        raise ValueError("no strategy")
    given = {str(each.arg): _argument(each.value) for each in node.keywords}
    return _STRATEGIES[node.func.id](*map(_argument, node.args), **given)


def _argument(node: ast.expr) -> Any:
    return _made(node) if isinstance(node, ast.Call) else ast.literal_eval(node)
