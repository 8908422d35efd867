"""Run the service on a DynamoDB inside this process: `python docs/examples/aiohttp/run.py`.

The DynamoDB is moto's, for trying out alone: its records end with the process.
"""

import os
import sys

from aiohttp import web
from app import make_app, store
from moto.server import ThreadedMotoServer


async def with_table() -> web.Application:
    await store.create_table()
    return make_app()


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
    web.run_app(with_table(), host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
    dynamodb.stop()
