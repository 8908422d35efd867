"""One engine more than elsewhere: what the model of `bench/` answers is what every engine answers."""

from collections.abc import Iterator
from typing import Any

import pytest
from aiobotocore.session import AioSession

from tests.conftest import engine_names, options_of
from tests.support.engines import Engine, model_engine


@pytest.fixture(scope="session")
def model() -> Iterator[Engine]:
    with model_engine() as engine:
        yield engine


@pytest.fixture(params=[*engine_names(), "model"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine that speaks DynamoDB's API."""
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["memory", *engine_names(), "batched", "model"])
def backend_options(request: pytest.FixtureRequest, session: AioSession) -> dict[str, Any]:
    """What a store needs to reach each backend."""
    return options_of(request, session)
