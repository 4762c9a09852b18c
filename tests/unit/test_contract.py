"""Contracts: weaker and other promises than the file system's own."""

from __future__ import annotations

import pytest
from oracle_cases import Has, Script, judge_case, make_tree

from fuzzer.errors import InputError
from oracles import CONTRACTS, parse_contract, profile_for
from oracles.profile import Order

RENAMED = "1-2 create a\n3-4 sync\n5-6 rename a b\n7-8 fsync b"
DATA = "1-2 create a\n3-4 fsync .\nw: 5-6 write a 0 4096\n7-8 fsync a"
EARLIER = "1-2 create a\n3-4 create b\n5-6 fsync b"


def judged(contract: str, fs: str, history: str, names: str, **inodes: Has) -> set[str]:
    script = Script(history)
    profile = profile_for(fs, contract=contract)
    verdict = judge_case(script, fs, make_tree(script, fs, names, **inodes), profile=profile)
    assert {violation.profile for violation in verdict.violations} <= {profile.name}
    return {f"{violation.rule} {violation.kind}" for violation in verdict.violations}


def test_posix_needs_an_fsync_of_the_directory_for_a_name(fs: str) -> None:
    assert "names missing-name" in judged("own", fs, RENAMED, "a")
    assert not judged("posix", fs, RENAMED, "a")
    assert not judged("posix", fs, "1-2 create a\n3-4 fsync a", "")
    assert "names missing-name" in judged("posix", fs, "1-2 create a\n3-4 fsync .", "")


def test_posix_keeps_synced_data(fs: str) -> None:
    assert not judged("posix", fs, DATA, "a", a=Has("w:0-4096"))
    assert "data lost-to-zero" in judged("posix", fs, DATA, "a", a=Has("0:0-4096"))


def test_posix_says_nothing_of_a_rename_nobody_synced(fs: str) -> None:
    history = "1-2 create a\n3-4 sync\n5-6 rename a b"
    assert "names rename-both" in judged("own", fs, history, "a b=a")
    assert not judged("posix", fs, history, "a b=a")


def test_ext4_like_orders_metadata_on_btrfs_too() -> None:
    assert not judged("own", "btrfs", EARLIER, "b")
    assert "names missing-name" in judged("ext4-like", "btrfs", EARLIER, "b")


def test_no_contract_accepts_foreign_data(fs: str) -> None:
    for contract in CONTRACTS:
        assert "data foreign-data" in judged(contract, fs, DATA, "a", a=Has("?:0-4096"))


def test_what_a_contract_leaves_open_is_counted(fs: str) -> None:
    script = Script(RENAMED)
    tree = make_tree(script, fs, "a b=a")
    own = judge_case(script, fs, tree, profile=profile_for(fs))
    open_ = judge_case(script, fs, tree, profile=profile_for(fs, contract='name = "x"\nsilent = ["names/*"]'))
    assert own.violations
    assert not open_.violations
    assert open_.no_promise == own.no_promise + len(own.violations)


def test_a_file_changes_what_it_names() -> None:
    contract = parse_contract(
        'name = "mine"\nbase = "posix"\norder = "global"\nfsync_names = true\nsilent = ["fsck/*"]\n'
        '[sources]\nname = "our manual"'
    )
    profile = contract.applied(profile_for("btrfs"))
    assert profile.name == "mine on btrfs"
    assert profile.order is Order.GLOBAL
    assert profile.fsync_names
    assert not profile.atomic_moves
    assert profile.source("name") == "our manual"
    assert profile.source("sync") == profile_for("btrfs").source("sync")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name must be"),
        ('name = "posix"', "name must be"),
        ('name = "x"\nbase = "ext5"', "base must be one of own, posix, ext4-like"),
        ('name = "x"\norder = "strict"', "order must be one of none, commit, global"),
        ('name = "x"\nfsync_names = "yes"', "fsync_names must be true or false"),
        ('name = "x"\nsilent = ["fsck"]', "silent must be a list of texts like 'rule/kind'"),
        ('name = "x"\nsources = ["fsck"]', "sources must be a table of texts"),
        ('name = "x"\nfsync = true', "unknown key 'fsync'"),
        ("name = ", "not TOML"),
        ("#" * 70_000, "at most 65536 bytes"),
    ],
)
def test_bad_contracts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_contract(text, "mine.toml")
