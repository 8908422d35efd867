"""Says at the end of a test run how many states of the protocol were seen."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_collection_of_cycles() -> Iterator[None]:
    """States are many, and none is in a cycle: looking for some takes a tenth of the time."""
    gc.disable()
    yield
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each exploration recorded."""
    reports = terminalreporter.getreports("passed")
    explored = [value for report in reports for name, value in report.user_properties if name == "explored"]
    if explored:
        terminalreporter.section("the protocol's states")
        for line in explored:
            terminalreporter.write_line(str(line))
