"""One function has one namespace, however its program is started; each program here is a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from aioidempotency import AsyncIdempotencyStore, idempotent, namespace_of

store = AsyncIdempotencyStore.in_memory()

@idempotent(store)
async def handle(order): ...

class Till:
    @idempotent(store)
    async def pay(self, order): ...

def tell():
    print(namespace_of(handle), namespace_of(Till().pay))

if __name__ == "__main__":
    if sys.argv[1:] == ["spawn"]:
        import multiprocessing
        process = multiprocessing.get_context("spawn").Process(target=tell)
        process.start()
        process.join()
    else:
        tell()
"""


def told(folder: Path, *arguments: str, **environment: str) -> str:
    """Run Python in a folder, and read what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two programs with a function of one name, and a package that is a program."""
    for name in ("invoices", "refunds"):
        (tmp_path / f"{name}.py").write_text(PROGRAM)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "__main__.py").write_text("from shop.handlers import tell\ntell()\n")
    (tmp_path / "shop" / "handlers.py").write_text(PROGRAM)
    return tmp_path


def test_a_script_a_module_and_an_import_are_one(folder: Path) -> None:
    """C18: moving from one to the other runs nothing again; a process that was spawned is no other program."""
    name = "invoices.handle invoices.Till.pay"
    assert told(folder, "invoices.py") == name
    assert told(folder, "-m", "invoices") == name
    assert told(folder, "-c", "import invoices; invoices.tell()") == name
    assert told(folder, "invoices.py", "spawn") == name
    assert told(folder, "-m", "invoices", "spawn") == name


def test_a_module_of_a_package_has_its_whole_name(folder: Path) -> None:
    """C18: with `-m` as imported."""
    name = "shop.handlers.handle shop.handlers.Till.pay"
    assert told(folder, "-m", "shop.handlers") == name
    assert told(folder, "-m", "shop") == name


def test_two_scripts_do_not_share(folder: Path) -> None:
    """C18: `handle` of the one is not `handle` of the other."""
    assert told(folder, "refunds.py") == "refunds.handle refunds.Till.pay"


def test_two_lambda_functions_do_not_share(folder: Path) -> None:
    """C18: both have the handler `invoices.handle`."""
    command = "import invoices; invoices.tell()"
    assert told(folder, "-c", command, AWS_LAMBDA_FUNCTION_NAME="fn-a").startswith("fn-a.invoices.handle ")
    assert told(folder, "-c", command, AWS_LAMBDA_FUNCTION_NAME="fn-b").startswith("fn-b.invoices.handle ")


def test_a_rename_is_seen(folder: Path) -> None:
    """C18: another name is another function, unless `namespace=` says otherwise."""
    renamed = PROGRAM.replace("handle", "take").replace("@idempotent(store)\nclass", "class")
    (folder / "invoices.py").write_text(renamed)
    assert told(folder, "invoices.py") == "invoices.take invoices.Till.pay"
    kept = renamed.replace(
        "@idempotent(store)\nasync def take", '@idempotent(store, namespace="handle")\nasync def take'
    )
    (folder / "invoices.py").write_text(kept)
    assert told(folder, "invoices.py").startswith("handle ")
