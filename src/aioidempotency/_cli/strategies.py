"""Strategies as arguments of a command: the calls that make them, and nothing else of Python."""

import ast
from collections.abc import Callable
from typing import Any, Final

from aioidempotency._cli.failure import CommandError
from aioidempotency.partitioning import HashBuckets, Partitioning, RandomBuckets, Reshard, Static, TimeBuckets

_TYPES: Final = (HashBuckets, RandomBuckets, Reshard, Static, TimeBuckets)
_STRATEGIES: Final[dict[str, Callable[..., Partitioning]]] = {each.__name__: each for each in _TYPES}


def parse_strategy(text: str) -> Partitioning:
    """Make a strategy from the call that makes it, as `layout show` prints it.

    Raises:
        CommandError: The text is no such call.
        PartitioningError: Its arguments make no sense.
    """
    try:
        return _call(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise CommandError(
            f'{text!r} is no strategy; write it in quotation marks, as in "HashBuckets(32)" or '
            "\"Reshard(Static('idempotency#handler'), HashBuckets(32), 'prepare')\""
        ) from error


def _call(node: ast.expr) -> Partitioning:
    """Evaluate a call of a strategy; its arguments are constants, or such calls."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise TypeError("no call of a name")
    if node.func.id == "CustomPartition":
        raise CommandError(
            "CustomPartition takes a function, which a shell cannot give: open a store with it, and the store writes "
            "the layout"
        )
    if node.func.id not in _STRATEGIES or any(each.arg is None for each in node.keywords):
        raise ValueError("no strategy")
    named = {str(each.arg): _argument(each.value) for each in node.keywords}
    strategy = _STRATEGIES[node.func.id](*map(_argument, node.args), **named)
    if isinstance(strategy, Reshard) and not (isinstance(strategy.old, _TYPES) and isinstance(strategy.new, _TYPES)):
        raise TypeError("Reshard takes two strategies")
    return strategy


def _argument(node: ast.expr) -> Any:
    return _call(node) if isinstance(node, ast.Call) else ast.literal_eval(node)
