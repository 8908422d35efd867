from tests.conftest import MakeStore


async def test_a_store_makes_its_table_and_answers(make_store: MakeStore) -> None:
    """C1, roughly: what is completed is replayed, on every backend."""
    store = make_store()
    async with store.execute("invoice-42") as execution:
        execution.complete({"total": 1})
    async with make_store().execute("invoice-42") as execution:
        assert execution.replayed
        assert execution.result == {"total": 1}
