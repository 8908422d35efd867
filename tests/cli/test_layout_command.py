"""`aioidempotency layout`: the steps of a move, from the command line, on a real table."""

import json
import os
import sys
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from aioidempotency import (
    AttributeNames,
    Claimed,
    CompositeKey,
    HashBuckets,
    LayoutMismatchError,
    RandomBuckets,
    Reshard,
    Static,
    TimeBuckets,
)
from aioidempotency._cli.app import app
from aioidempotency._cli.failure import CommandError
from aioidempotency._cli.strategies import parse_strategy
from aioidempotency.partitioning import Partitioning
from aioidempotency.partitioning import table_layout as layout
from tests.cli.conftest import Command, OpenStore, created, run

OLD, NEW = Static("idempotency#handler"), HashBuckets(8)
PREPARE = "Reshard(Static('idempotency#handler'), HashBuckets(8), 'prepare')"
CUTOVER = "Reshard(Static('idempotency#handler'), HashBuckets(8), 'cutover')"


async def test_a_table_is_shown_as_it_says(command: Command, open_store: OpenStore) -> None:
    """The strategy as the call that makes it, since when, and as JSON for programs."""
    await created(open_store(OLD))
    shown = await run(command, "layout", "show")
    assert shown.exit_code == 0
    first, since, promised = shown.stdout.splitlines()
    assert first == "Static(value='idempotency#handler')"
    assert since.startswith("since 20")
    assert promised == "records answer for up to 3600 s"
    said = json.loads((await run(command, "layout", "show", "--json")).stdout)
    assert said["layout"] == first
    assert (said["before"], said["changes"]) == (None, 1)
    assert (said["promised"], said["promised_until"]) == (3600, None)


async def test_the_steps_of_a_move_from_the_command_line(command: Command, open_store: OpenStore) -> None:
    """P4: each step says what comes next, and one that leaves out a phase is refused."""
    await created(open_store(OLD))
    for step, code in ((CUTOVER, 1), (PREPARE, 0), ("HashBuckets(8)", 1), (CUTOVER, 0), ("HashBuckets(8)", 1)):
        assert (await run(command, "layout", "set", step)).exit_code == code, step
    refused = await run(command, "layout", "set", "HashBuckets(8)")
    assert "keep the phase before until then" in refused.stderr
    shown = (await run(command, "layout", "show")).stdout
    assert "phase='cutover')" in shown.splitlines()[0]
    assert "before: Reshard(" in shown
    assert "next: HashBuckets(n=8, prefix='idempotency'), from 20" in shown


async def test_a_move_can_be_taken_back(command: Command, open_store: OpenStore) -> None:
    """Stores move a table on; back it goes by the command alone."""
    await created(open_store(OLD))
    async with open_store(Reshard(OLD, NEW)) as ahead:
        await ahead.verify_layout()
    assert (await run(command, "layout", "set", "Static('idempotency#handler')")).exit_code == 0
    async with open_store(Reshard(OLD, NEW, "cutover")) as skipping:
        with pytest.raises(LayoutMismatchError):
            await skipping.verify_layout()


async def test_checking_changes_nothing_and_counts_what_would_be_left(command: Command, open_store: OpenStore) -> None:
    """P4: live records in the old locations are what `new` would run again."""
    await created(open_store(OLD))
    async with open_store(OLD) as store:
        assert all(isinstance(each, Claimed) for each in await store.claim_many(range(5)))
    for step in (PREPARE, CUTOVER):
        assert (await run(command, "layout", "set", step)).exit_code == 0
    refused = await run(command, "layout", "check", "HashBuckets(8)")
    assert refused.exit_code == 1
    assert "that HashBuckets(n=8, prefix='idempotency') would not find: 5\n" in refused.stdout
    assert (await run(command, "layout", "check", CUTOVER)).stdout.endswith("may open the table\n")
    assert (await run(command, "layout", "check", PREPARE)).exit_code == 0
    assert (await run(command, "layout", "check", "Static('idempotency#handler')")).exit_code == 1
    assert json.loads((await run(command, "layout", "show", "--json")).stdout)["changes"] == 3


async def test_what_would_be_left_is_counted_by_key(command: Command, open_store: OpenStore) -> None:
    """P8: both strategies use the same partition values, and yet half of the keys change theirs."""
    fewer, more = HashBuckets(4), HashBuckets(8)
    await created(open_store(fewer))
    async with open_store(fewer) as store:
        await store.claim_many(range(40), lease=3000)
        keys = [record.key for record in await store.get_many(range(40)) if record is not None]
    for phase in ("prepare", "cutover"):
        assert (
            await run(command, "layout", "set", f"Reshard(HashBuckets(4), HashBuckets(8), '{phase}')")
        ).exit_code == 0
    async with open_store(Reshard(fewer, more, "cutover")) as store:
        await store.claim_many(range(40, 60), lease=3000)
    changing = sum(fewer.home(key, 0) != more.home(key, 0) for key in keys)
    assert 5 < changing < 35
    refused = await run(command, "layout", "check", "HashBuckets(8)")
    assert f"that HashBuckets(n=8, prefix='idempotency') would not find: {changing}\n" in refused.stdout
    assert (await run(command, "layout", "check", "HashBuckets(9)")).stdout.startswith(
        "live records that HashBuckets(n=9"
    )


async def test_only_records_of_the_namespace_are_counted(command: Command, open_store: OpenStore) -> None:
    """P8: other namespaces have layouts of their own, and may use the same partition values."""
    await created(open_store(OLD, namespace="shop"))
    for namespace, number in (("shop", 3), ("stock", 4)):
        async with open_store(OLD, namespace=namespace) as store:
            await store.claim_many(range(number), lease=3000)
    checked = await run(command, "layout", "check", "HashBuckets(8)", "--namespace", "shop")
    assert "would not find: 3\n" in checked.stdout


async def test_the_end_of_the_wait_is_that_of_the_longest_retention(command: Command, open_store: OpenStore) -> None:
    """P8: `show` and `check` tell it, whatever --retention the asking store has; a command can promise for others."""
    await created(open_store(OLD))
    async with open_store(OLD) as store:
        await store.claim("k", retention=86_400)
    for step in (PREPARE, CUTOVER):
        assert (await run(command, "layout", "set", step)).exit_code == 0
    said = json.loads((await run(command, "layout", "show", "--json")).stdout)
    assert (said["promised_before"], said["promised_until"]) == (86_400, said["since"] + 86_400)
    until = f"{datetime.fromtimestamp(said['promised_until'], UTC):%Y-%m-%d %H:%M:%S} UTC"
    assert (
        f"next: HashBuckets(n=8, prefix='idempotency'), from {until} on"
        in (await run(command, "layout", "show")).stdout
    )
    for options in ((), ("--retention", "60")):
        checked = await run(command, "layout", "check", "HashBuckets(8)", *options)
        assert f"may live until {until}: keep the phase before" in checked.stderr
    assert (await run(command, "layout", "set", CUTOVER, "--retention", "90000")).exit_code == 0
    assert json.loads((await run(command, "layout", "show", "--json")).stdout)["promised"] == 90_000
    back = await run(command, "layout", "set", PREPARE)
    assert "back: Static(value='idempotency#handler'), from 20" in back.stdout


async def test_after_a_return_from_new_there_is_no_wait(command: Command, open_store: OpenStore) -> None:
    """The old locations were empty already."""
    await created(open_store(NEW))
    shown = await run(command, "layout", "set", CUTOVER)
    assert "next: HashBuckets(n=8, prefix='idempotency'), at any time\n" in shown.stdout


async def test_force_says_whatever_is_asked(command: Command, open_store: OpenStore) -> None:
    """For a table without records."""
    await created(open_store(OLD))
    assert (await run(command, "layout", "set", "HashBuckets(64)")).exit_code == 1
    assert (await run(command, "layout", "set", "--force", "HashBuckets(64)")).exit_code == 0
    async with open_store(HashBuckets(64)) as store:
        await store.verify_layout()


async def test_a_namespace_and_other_names_are_options(command: Command, open_store: OpenStore) -> None:
    """As the store has them."""
    options = {"attributes": AttributeNames(data="body"), "namespace": "shop"}
    table = CompositeKey("hash", "order", partitioning=OLD)
    await created(open_store(OLD, layout=table, **options))
    named = ("--keys", "hash, order", "--attribute", "data=body")
    assert (await run(command, "layout", "show", *named)).exit_code == 1
    assert (await run(command, "layout", "show", "--namespace", "shop", *named)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "trouble"),
    [
        (("set", "HashBuckets"), 'as in "HashBuckets(32)"'),
        (("set", "HashBuckets(0)"), "at least one bucket"),
        (("set", "__import__('os').getcwd()"), "is no strategy"),
        (("set", "HashBuckets(*[1])"), "is no strategy"),
        (("set", "HashBuckets(**{})"), "is no strategy"),
        (("set", "HashBuckets(buckets=3)"), "is no strategy"),
        (("set", "Reshard(Static('a'), 5)"), "is no strategy"),
        (("set", "CustomPartition(len)"), "the store writes the layout"),
        (("show", "--attribute", "ttl=x"), "--attribute takes role=name"),
        (("show", "--namespace", "a#b"), "--namespace takes a text without '#'"),
        (("show", "--keys", "pk"), "--keys takes two names"),
    ],
)
async def test_bad_input_is_one_line(command: Command, arguments: tuple[str, ...], trouble: str) -> None:
    """With the remedy, and the exit code 2."""
    ended = await run(command, "layout", *arguments)
    assert ended.exit_code == 2
    assert trouble in ended.stderr
    assert ended.stderr.count("\n") == 1


async def test_a_table_that_is_not_there_is_one_line(command: Command) -> None:
    """It names the options to check, not the arguments of a store."""
    ended = await run(command, "layout", "show")
    assert ended.exit_code == 2
    assert "there is no such table here" in ended.stderr
    assert "check --table-name, --region and --endpoint-url\n" in ended.stderr
    assert "await" not in ended.stderr


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "AWS_SECRET_ACCESS_KEY, a profile or a role\n"),
        (("AWS_DEFAULT_REGION",), "give --region, or set AWS_DEFAULT_REGION\n"),
    ],
)
def test_missing_aws_settings_are_named_as_a_shell_has_them(
    monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], advice: str
) -> None:
    """Environment variables and options, and nothing of Python."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    for name, value in settings.items():
        if name not in missing:
            monkeypatch.setenv(name, value)
    ended = CliRunner().invoke(app, ["layout", "show", "--table-name", "orders"])
    assert ended.exit_code == 2
    assert ended.stderr.endswith(advice)
    assert ended.stderr.count("\n") == 1


async def test_a_table_that_says_nothing_is_told_so(command: Command, open_store: OpenStore) -> None:
    """`show` and `check` write nothing; `set` does."""
    await created(open_store(OLD, verify_layout=False))
    assert (await run(command, "layout", "show")).exit_code == 1
    assert (await run(command, "layout", "check", PREPARE)).exit_code == 1
    assert (await run(command, "layout", "show")).exit_code == 1
    assert (await run(command, "layout", "set", "Static('idempotency#handler')")).exit_code == 0


@pytest.mark.parametrize(
    "made",
    [
        OLD,
        NEW,
        RandomBuckets(9, choices=3, prefix="p"),
        TimeBuckets(600, buckets=4, retention=7200),
        Reshard(OLD, TimeBuckets(60.0, retention=60.0), "cutover"),
    ],
)
def test_what_is_shown_can_be_given_back(made: Partitioning) -> None:
    """`layout show` prints what `layout set` takes."""
    shown = layout.as_code(made.description())
    assert parse_strategy(shown).description() == made.description()


def test_a_strategy_that_is_far_too_deep_is_refused() -> None:
    """Python's own parser gives up on it."""
    with pytest.raises(CommandError, match="is no strategy"):
        parse_strategy("Reshard(" * sys.getrecursionlimit())
