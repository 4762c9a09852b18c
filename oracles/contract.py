"""Contracts: other promises to judge by than the file system's own: built in, or from a TOML file.

What a contract leaves open is counted as not promised. No contract makes foreign data in a file
(stale blocks, other people's words) acceptable.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fuzzer.errors import InputError
from oracles.ext4_like import EXT4_LIKE_SOURCES
from oracles.posix import POSIX_SILENT, POSIX_SOURCES
from oracles.profile import Order, Profile, own_profile

OWN = "own"
"""The contract of whatever file system is tested."""

MAX_CONTRACT_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Changes to a file system's own profile; None keeps what the file system promises."""

    name: str
    order: Order | None = None
    fsync_names: bool | None = None
    atomic_moves: bool | None = None
    silent: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    def applied(self, profile: Profile) -> Profile:
        """`profile` with this contract's promises."""
        named = profile.name if self.name == OWN else f"{self.name} on {profile.fs}"
        return replace(
            profile,
            name=named,
            order=profile.order if self.order is None else self.order,
            fsync_names=profile.fsync_names if self.fsync_names is None else self.fsync_names,
            atomic_moves=profile.atomic_moves if self.atomic_moves is None else self.atomic_moves,
            silent=(*profile.silent, *self.silent),
            sources={**profile.sources, **self.sources},
        )


CONTRACTS = {
    OWN: Contract(name=OWN),
    "posix": Contract(
        name="posix",
        order=Order.NONE,
        fsync_names=False,
        atomic_moves=False,
        silent=POSIX_SILENT,
        sources=POSIX_SOURCES,
    ),
    "ext4-like": Contract(
        name="ext4-like", order=Order.GLOBAL, fsync_names=True, atomic_moves=True, sources=EXT4_LIKE_SOURCES
    ),
}
"""Built-in contracts by name."""


def profile_for(fs: str, mount: str = "", contract: str = OWN) -> Profile:
    """The profile to judge file system `fs`, mounted with `mount`, by.

    `contract` is the name of a built-in contract or the text of a TOML one (see `parse_contract`).
    """
    found = CONTRACTS.get(contract)
    return (found or parse_contract(contract)).applied(own_profile(fs, mount))


def parse_contract(text: str, place: str = "") -> Contract:
    """Read a contract; InputError names the key that is wrong.

    Keys: `name`; `base` (a built-in contract, default `own`); `order` (`none`, `commit`, `global`);
    `fsync_names`, `atomic_moves` (booleans); `silent` (patterns of `rule/kind`); table `sources`.
    """
    if len(text) > MAX_CONTRACT_BYTES:
        raise InputError(f"a profile has at most {MAX_CONTRACT_BYTES} bytes", place=place)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"not TOML: {error}", place=place) from error
    reader = _Reader(data, place)
    base = CONTRACTS[reader.one_of("base", tuple(CONTRACTS), OWN)]
    order = reader.one_of("order", tuple(Order), "")
    contract = Contract(
        name=reader.text("name"),
        order=Order(order) if order else base.order,
        fsync_names=reader.flag("fsync_names", base.fsync_names),
        atomic_moves=reader.flag("atomic_moves", base.atomic_moves),
        silent=(*base.silent, *reader.texts("silent")),
        sources={**base.sources, **reader.table("sources")},
    )
    reader.finish()
    return contract


@dataclass(slots=True)
class _Reader:
    """Takes typed values out of a TOML table, and complains about what is left."""

    data: dict[str, object]
    place: str

    def refuse(self, key: str, wanted: str) -> InputError:
        return InputError(f"{key} must be {wanted}", place=self.place, hint="see README, profiles")

    def text(self, key: str) -> str:
        value = self.data.pop(key, None)
        if not isinstance(value, str) or not value or value in CONTRACTS:
            raise self.refuse(key, f"a text other than {', '.join(CONTRACTS)}")
        return value

    def one_of(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.data.pop(key, default)
        if value != default and value not in choices:
            raise self.refuse(key, f"one of {', '.join(choices)}")
        return str(value)

    def flag(self, key: str, default: bool | None) -> bool | None:
        value = self.data.pop(key, default)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(key, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and "/" in item for item in value):
            raise self.refuse(key, "a list of texts like 'rule/kind'")
        return tuple(value)

    def table(self, key: str) -> dict[str, str]:
        value = self.data.pop(key, {})
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise self.refuse(key, "a table of texts")
        return value

    def finish(self) -> None:
        if self.data:
            raise InputError(f"unknown key {sorted(self.data)[0]!r}", place=self.place)
