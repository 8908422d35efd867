"""The benchmark of the first call: that it runs, and that the programs do what is said of them."""

from bench import cold_start


def test_every_program_is_measured() -> None:
    """In small, with and without TLS. A program that failed would end the run."""
    found = cold_start.measured(1)
    assert list(found) == ["plain", "TLS"]
    for each in found.values():
        assert list(each["processor_ms"]) == list(cold_start.PROGRAMS)
        assert min(taken.least for taken in each["processor_ms"].values()) > 0
