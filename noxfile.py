import pathlib
import shutil
import subprocess

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests"]
nox.needs_version = ">=2025.2.9"

# Each process has engines of its own; one that is done takes over tests of another.
ON_ALL_CORES = ["--numprocesses=logical", "--dist=worksteal"]
BEHAVIOURS = ["tests/behaviours", "tests/effects", "tests/ownership", "tests/processes"]

WITH_A_CLIENT = ["tests/contract", "tests/batches"]
# Of moto's server and of MiniStack, what DynamoDB needs: the whole takes two minutes to install.
NEEDED_BY_ENGINES = [
    *("moto[dynamodb]>=5.2", "flask", "flask-cors"),
    *("hypercorn>=0.18.0", "pyyaml>=6.0", "defusedxml>=0.7", "jsonata-python>=0.7.0", "graphql-core"),
]

PROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def installed(version: str) -> bool:
    """Tell whether an interpreter is there and works: a version manager's shim may be there and not."""
    found = shutil.which(f"python{version}")
    return found is not None and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0


@nox.session(python=[version for version in PYTHONS if installed(version)] or ["3"])
def tests(session: nox.Session) -> None:
    """Run the tests on all cores and check their coverage: the core whole, the package 97 %."""
    session.install(".", *group("test"))
    data = pathlib.Path(session.create_tmp()) / ".coverage"
    env = {"COVERAGE_FILE": str(data), "PYTHONDONTWRITEBYTECODE": "1"}
    for old in data.parent.glob(".coverage*"):
        old.unlink()
    if session.posargs:
        session.run("pytest", *session.posargs, env=env)
        return
    session.run("coverage", "run", "-m", "pytest", *ON_ALL_CORES, env=env)
    session.run("coverage", "combine", env=env, silent=True)
    session.run("coverage", "report", "--fail-under=97", env=env)
    session.run("coverage", "report", "--include=*/aioidempotency/_core/*", "--fail-under=100", env=env)


@nox.session
def matrix(session: nox.Session) -> None:
    """Run the tests of behaviours on every backend, and not on the most telling one alone: five minutes."""
    session.install(".", *group("test"))
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    session.run("pytest", "--matrix", *ON_ALL_CORES, *(session.posargs or BEHAVIOURS), env=env)


@nox.session
def client(session: nox.Session) -> None:
    """Run the tests on aiobotocore's client."""
    session.install(".", *group("test"))
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    session.run("pytest", "--transport=client", *ON_ALL_CORES, *session.posargs, env=env)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the tests that use a client with the oldest aiobotocore that is allowed: three minutes."""
    needed: list[str] = PROJECT["project"]["dependencies"]
    oldest = next(each.replace(">=", "==") for each in needed if each.startswith("aiobotocore"))
    engine = next(each for each in group("test") if each.startswith("ministack"))
    tools = [each for each in group("test") if each.startswith(("attrs", "hypothesis", "pydantic", "pytest"))]
    session.install(oldest, ".[cli]", *tools, *NEEDED_BY_ENGINES)
    # MiniStack asks for one version of botocore, which its DynamoDB never calls.
    session.install("--no-deps", engine)
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    session.run("pytest", *ON_ALL_CORES, *(session.posargs or WITH_A_CLIENT), env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy, strict, and pyright."""
    session.install(".", *group("types"))
    session.run("mypy")
    session.run("pyright", env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


@nox.session
def contracts(session: nox.Session) -> None:
    """Check that imports point down, and that the core is pure."""
    session.install(".", *group("contracts"))
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a broken link is an error."""
    session.install(".", *group("docs"))
    site = str(pathlib.Path("site").resolve())
    env = {"NO_MKDOCS_2_WARNING": "1"}
    session.run("mkdocs", "build", "--strict", "--config-file", "docs/mkdocs.yml", "--site-dir", site, env=env)


@nox.session
def simulation(session: nox.Session) -> None:
    """Run the simulation for 20,000 seeds; a failing one prints itself."""
    session.install(".", *group("test"))
    env = {"AIOIDEMPOTENCY_SEEDS": "20000"}
    path = "tests/simulation/test_simulation.py"
    session.run("pytest", path, "--timeout=7200", *ON_ALL_CORES, *session.posargs, env=env)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the cost of an execution, and that of its peers: twelve minutes."""
    session.install(".", *group("bench"))
    session.run("python", "-m", "bench.speed", *session.posargs)


@nox.session
def instructions(session: nox.Session) -> None:
    """Count the instructions of an execution, and fail where they grew; needs valgrind: six minutes."""
    session.install(".", *group("bench"))
    session.run("python", "-m", "bench.instructions", *session.posargs)


@nox.session
def bench_placements(session: nox.Session) -> None:
    """Measure placements at rising load, on MiniStack with a limit for each partition: four minutes."""
    session.install(".", *group("bench"))
    session.run("python", "-m", "bench.placements", *session.posargs)


@nox.session
def bench_invocations(session: nox.Session) -> None:
    """Measure an invocation of a Lambda handler, and that of its peers: one minute."""
    session.install(".", *group("bench"))
    session.run("python", "-m", "bench.invocations", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo."""
    session.install(".[demo]")
    session.run("aioidempotency", "demo", *session.posargs)
