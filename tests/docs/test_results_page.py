"""The table of the page on results is the table that the tests try out."""

from pathlib import Path

from tests.support.results import HEAD, ROWS

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "results.md"


def test_the_page_lists_what_the_tests_try_out() -> None:
    """C16, C17: line by line. `test_a_result_comes_back_as_the_table_says` tries each line out."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert lines == [*HEAD, *(row.line for row in ROWS)]
