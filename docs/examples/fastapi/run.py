"""Run the service on a DynamoDB inside this process: `python docs/examples/fastapi/run.py`.

The DynamoDB is moto's, for trying out alone: its records end with the process.
"""

import asyncio
import os
import sys
from contextlib import suppress

import uvicorn
from app import app, store
from moto.server import ThreadedMotoServer


async def serve(port: int) -> None:
    await store.create_table()
    config = uvicorn.Config(app, port=port, timeout_graceful_shutdown=10)
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    dynamodb = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    dynamodb.start()
    host, number = dynamodb.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL_DYNAMODB": f"http://{host}:{number}",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
    }
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 8000))
    dynamodb.stop()
