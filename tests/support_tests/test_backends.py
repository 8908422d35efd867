"""Which backends a test runs on: one tells what a behaviour is, and `--matrix` asks all."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALL = {"memory", "moto", "ministack", "batched"}


def collect(*arguments: str) -> tuple[int, dict[str, set[str]], str]:
    """Collect tests in a process of its own: the exit code, the backends of each test, and the whole output."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    backends: dict[str, set[str]] = {}
    for name, parameters in re.findall(r"::(\w+)\[(.*)\]$", ran.stdout, flags=re.MULTILINE):
        backends.setdefault(name, set()).update(set(parameters.split("-")) & ALL)
    return ran.returncode, backends, ran.stdout + ran.stderr


BEHAVIOUR = "tests/behaviours/test_owners.py::test_a_finished_record_is_not_completed_again"
ALONE = {
    BEHAVIOUR: {"ministack"},
    "tests/behaviours/test_bodies.py::test_nested_calls_complete_their_own_records": {"memory"},
    "tests/behaviours/test_races.py::test_of_500_claims_at_once_one_wins": ALL,
    "tests/contract/test_backend_contract.py::test_places_are_told_apart": ALL,
}


@pytest.mark.parametrize("options", [[], ["--matrix"]], ids=["alone", "matrix"])
def test_a_test_runs_on_what_its_mark_says_and_in_the_matrix_on_everything(options: list[str]) -> None:
    """On MiniStack without a mark; the contract on all backends at any time."""
    code, backends, output = collect(*ALONE, *options)
    assert code == 0, output
    assert backends == {name.partition("::")[2]: ALL if options else alone for name, alone in ALONE.items()}


def test_a_test_that_is_left_out_as_a_whole_is_an_error() -> None:
    """A mark that names no backend of its test would silently end it."""
    code, _, output = collect(f"{BEHAVIOUR}[moto]")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert f"left out on every backend that was asked for, without --matrix: ['{BEHAVIOUR}']" in output
