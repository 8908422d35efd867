"""C21: who claims, for people, made once for a process."""

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency import ConfigurationError, _label
from aioidempotency._options import AUTO, labelled


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Forget what this process is called, before a test and after it."""
    _label.forget()
    yield
    _label.forget()


@pytest.fixture
def on_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment of a function on Lambda."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "charge")
    monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", "2024/05/04/[$LATEST]4f1b")


def test_a_process_is_named_by_its_host_and_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """C21: unless a label says otherwise."""
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    assert labelled(AUTO) is AUTO
    assert _label.automatic() == f"{socket.gethostname()} {os.getpid()}"


@pytest.mark.usefixtures("on_lambda")
def test_a_function_is_named_by_its_log_stream_and_the_invocation() -> None:
    """C21: what leads to its log; the request id as soon as somebody tells it."""
    assert _label.automatic() == "charge 2024/05/04/[$LATEST]4f1b"
    token = _label.REQUEST_ID.set("8476a536-e9f4-11e8-9739-2dfe598c3fcd")
    assert _label.automatic() == "charge 2024/05/04/[$LATEST]4f1b 8476a536-e9f4-11e8-9739-2dfe598c3fcd"
    _label.REQUEST_ID.reset(token)
    assert _label.automatic() == "charge 2024/05/04/[$LATEST]4f1b"


@pytest.mark.usefixtures("on_lambda")
def test_a_function_without_a_log_stream_is_named_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """C21: a snapshot that is restored has none."""
    monkeypatch.delenv("AWS_LAMBDA_LOG_STREAM_NAME")
    assert _label.automatic() == "charge"


@pytest.mark.usefixtures("on_lambda")
def test_a_long_name_leaves_room_for_the_invocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """C21: 256 bytes in all."""
    monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", "é" * 500)
    token = _label.REQUEST_ID.set("8476a536-e9f4-11e8-9739-2dfe598c3fcd")
    named = _label.automatic()
    _label.REQUEST_ID.reset(token)
    assert named.endswith("é 8476a536-e9f4-11e8-9739-2dfe598c3fcd")
    assert len(named.encode()) <= _label.LONGEST


def test_the_name_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """C21: not for each claim."""
    first = _label.automatic()
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "another")
    assert _label.automatic() is first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_is_named_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """C21: by its own process id."""
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    _label.automatic()
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writes, _label.automatic().encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as told:
        assert told.read() == f"{socket.gethostname()} {child}"
    os.waitpid(child, 0)


@given(st.text(max_size=400))
def test_a_label_is_cut_at_a_character(text: str) -> None:
    """C21: 256 bytes of UTF-8 at the most, and nothing of a character that does not fit."""
    cut = _label.cut(text)
    whole = text.encode(errors="replace").decode()
    assert whole.startswith(cut)
    assert len(cut.encode()) <= _label.LONGEST
    assert cut == whole or len(whole[: len(cut) + 1].encode()) > _label.LONGEST


def test_a_label_of_ones_own_counts() -> None:
    """C21: as it is; None leaves it out."""
    assert labelled("worker 7") == "worker 7"
    assert labelled(None) is None
    assert repr(AUTO) == "AUTO"


@pytest.mark.parametrize("label", ["", " ", 5, b"worker"])
def test_what_is_no_label_is_refused(label: str) -> None:
    """C21: as every setting that makes no sense."""
    with pytest.raises(ConfigurationError, match="label= takes a text that is not empty, or None"):
        labelled(label)
