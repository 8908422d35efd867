"""TLS as the client does it: a private authority is trusted where botocore is told of it, and nothing else."""

import asyncio
import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiobotocore.session import AioSession, get_session

from aioidempotency import StoreError
from aioidempotency.backends import Applied
from tests.support.wire_server import APPLIED, WireServer, scripted
from tests.transport.conftest import PUT, Backends, put


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority that no system trusts."""
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    """The authority's certificate."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def trusting(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell botocore of the authority, in the environment."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))


def server_side(authority: trustme.CA, *names: str, **options: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names, **options).configure_cert(context)
    return context


@pytest.mark.usefixtures("trusting")
async def test_a_private_authority(transport: str, authority: trustme.CA, backends: Backends) -> None:
    """Calls in turn and at once, with answers over several records of TLS."""
    async with WireServer(scripted(APPLIED), server_side(authority, "127.0.0.1")) as server:
        backend = backends(server.url, transport=transport)
        for _ in range(3):
            assert await backend.execute(PUT) == Applied()
        assert server.connections == 1
        answers = await asyncio.gather(*(backend.execute(put(f"k{number}")) for number in range(30)))
        assert answers == [Applied()] * 30
        await backend.aclose()


@pytest.mark.usefixtures("trusting")
async def test_a_name(transport: str, authority: trustme.CA, backends: Backends) -> None:
    """A host's name is compared with the certificate's, and told to the server."""
    async with WireServer(scripted(APPLIED), server_side(authority, "localhost"), host="localhost") as server:
        backend = backends(server.url, transport=transport)
        assert await backend.execute(PUT) == Applied()
        await backend.aclose()


@pytest.mark.parametrize("fault", ["unknown authority", "wrong name", "expired"])
@pytest.mark.usefixtures("no_pauses")
async def test_a_server_that_cannot_be_trusted(
    fault: str, transport: str, bundle: Path, backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request is sent to it, not even the credentials' id."""
    authority = trustme.CA()
    if fault != "unknown authority":
        authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    names = ["example.org"] if fault == "wrong name" else ["127.0.0.1"]
    options = {"not_after": yesterday} if fault == "expired" else {}
    async with WireServer(scripted(APPLIED), server_side(authority, *names, **options)) as server:
        backend = backends(server.url, transport=transport)
        with pytest.raises(StoreError, match="SSLError"):
            await backend.execute(PUT)
        assert server.requests == []
        await backend.aclose()


class Unverifying(AioSession):  # type: ignore[misc] # it ships no types
    """A session whose clients verify nothing."""

    def create_client(self, *arguments: Any, **options: Any) -> Any:
        return super().create_client(*arguments, **options, verify=False)


async def test_verification_that_is_turned_off(transport: str, backends: Backends) -> None:
    """`verify=False` of the client counts."""
    session = Unverifying()
    session.set_credentials("testing", "testing")
    async with WireServer(scripted(APPLIED), server_side(trustme.CA(), "example.org")) as server:
        backend = backends(server.url, transport=transport, session=session)
        assert await backend.execute(PUT) == Applied()
        await backend.aclose()


@pytest.mark.usefixtures("trusting")
def test_loops_that_end_leave_nothing_open(transport: str, authority: trustme.CA) -> None:
    """O19: over TLS, too, each loop closes its connections when it ends, though nobody closes the backend."""
    session = get_session()
    session.set_credentials("testing", "testing")

    async def main() -> None:
        made = Backends(session)
        async with WireServer(scripted(APPLIED), server_side(authority, "127.0.0.1")) as server:
            assert await made(server.url, transport=transport).execute(PUT) == Applied()

    asyncio.run(main())
    asyncio.run(main())
