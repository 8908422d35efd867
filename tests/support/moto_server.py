"""Moto's server as a process of its own: the very one that the demo runs."""

from aioidempotency._cli.server import main, one_at_a_time

__all__ = ["main", "one_at_a_time"]

if __name__ == "__main__":
    main()
