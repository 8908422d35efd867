"""When calls begin: drawn beforehand, so that all placements get the same schedule.

A schedule is an open loop: a call begins at its time, whatever became of the earlier calls.
"""

import random


def schedule(offered: int, seconds: int, seed: str) -> list[float]:
    """Draw `offered` calls for each second, at independent instants of that second."""
    dice = random.Random(f"{seed} {offered}")  # noqa: S311 - a schedule, no secret
    return sorted(second + dice.random() for second in range(seconds) for _ in range(offered))
