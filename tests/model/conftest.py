"""Says at the end of a test run how many states of the protocol were seen."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each exploration recorded."""
    reports = terminalreporter.getreports("passed")
    explored = [value for report in reports for name, value in report.user_properties if name == "explored"]
    if explored:
        terminalreporter.section("the protocol's states")
        for line in explored:
            terminalreporter.write_line(str(line))
