"""Moto's server as a process of its own: the very one that the demo runs.

It prints its port, and ends when its standard input does: the parent holds the other end.
"""

import asyncio
import sys
from urllib.parse import urlsplit

from aioidempotency._cli.server import moto_dynamodb


async def main() -> None:
    async with moto_dynamodb() as url:
        sys.stdout.write(f"{urlsplit(url).port}\n")
        sys.stdout.flush()
        # The parent reads one line; whatever is printed later must not fill the pipe.
        sys.stdout = sys.stderr
        await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main())
