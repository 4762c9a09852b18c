"""Hypothesis strategies over the whole op table: every op, every parameter, draws, awkward names."""

from __future__ import annotations

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fuzzer.workload.model import SCHED_POLICIES, Actor, Draw, Op, Value, Workload, make_op
from fuzzer.workload.ops import MAX_FILE_BYTES, OPS, Kind, OpSpec, Param
from fuzzer.workload.validate import CAPABILITIES

_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
COMPONENTS = st.one_of(
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.text(_CHARACTERS, min_size=1, max_size=12),
).filter(lambda name: name not in (".", ".."))
PATHS = st.one_of(st.just("."), st.lists(COMPONENTS, min_size=1, max_size=3).map("/".join))
TARGETS = PATHS
PROSE_LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40).map(
    lambda line: line.strip(" ")
)


def numbers(param: Param, high: int) -> SearchStrategy[Value]:
    """Values the table allows, single or drawn, up to `high`."""
    unit, low = param.unit, -(-param.low // param.unit)
    single = st.integers(low, high // unit).map(lambda count: count * unit)
    draws = st.tuples(single, single, st.integers(1, 100)).map(
        lambda got: Draw(min(got[:2]), max(got[:2]), got[2] * unit)
    )
    return st.one_of(single, draws)


def values(spec: OpSpec, param: Param) -> SearchStrategy[Value]:
    """Any allowed value of one parameter of one op."""
    if param.kind is Kind.PATH:
        return PATHS
    if param.kind is Kind.CHOICE:
        return st.sampled_from(param.choices)
    if param.kind is Kind.MODE:
        return st.integers(0, param.high)
    if param.kind is Kind.TEXT:
        return TARGETS if spec.name == "symlink" else COMPONENTS
    # Half of the largest file each, so that offset and length together stay inside it. Multiples of
    # 4 KiB would be too rare by chance for collapse and insert, so fallocate keeps to them.
    if spec.name == "fallocate":
        param = Param(param.name, param.kind, unit=4096, low=param.low)
    # `good` below a quarter and `len` above, so that memory never reaches as far as the write.
    if spec.name == "fault_write" and param.name == "good":
        return numbers(param, MAX_FILE_BYTES // 4 - param.unit)
    if spec.name == "fault_write" and param.name == "len":
        param = Param(param.name, param.kind, unit=param.unit, low=MAX_FILE_BYTES // 4)
    # What every knob can be set to.
    if spec.name == "knob" and param.name == "value":
        return numbers(Param(param.name, param.kind, low=1), 100)
    return numbers(param, min(param.high, MAX_FILE_BYTES // 2))


def ops(allowed: SearchStrategy[str]) -> SearchStrategy[Op]:
    """Ops with all parameters chosen."""

    def build(name: str) -> SearchStrategy[Op]:
        spec = OPS[name]
        given = {param.name: values(spec, param) for param in spec.params}
        return st.fixed_dictionaries(given).map(lambda chosen: make_op(name, chosen))

    return allowed.flatmap(build)


def op_names(fs: str, *, setup: bool) -> SearchStrategy[str]:
    """Names of the ops that `fs` has."""
    excluded = {"barrier"} if setup else set()
    return st.sampled_from(
        [
            name
            for name, spec in OPS.items()
            if name not in excluded and not {"btrfs", "xfs"} & set(spec.requires) - {fs}
        ]
    )


def actors(fs: str) -> SearchStrategy[tuple[Actor, ...]]:
    """One to four actors, the first with a counted loop."""
    loops = st.one_of(st.none(), st.integers(1, 1000))
    body = st.lists(ops(op_names(fs, setup=False)), min_size=1, max_size=6).map(tuple)
    first = st.builds(
        Actor, st.just("first"), body, st.integers(1, 1000), st.none(), st.sampled_from(SCHED_POLICIES)
    )
    others = [
        st.builds(Actor, st.just(f"other-{number}"), body, loops, st.one_of(st.none(), st.integers(0, 63)))
        for number in range(3)
    ]
    return st.integers(0, 3).flatmap(lambda count: st.tuples(first, *others[:count]))


_WHYS = st.lists(PROSE_LINES, max_size=5).map(lambda lines: "\n".join(lines).strip("\n"))
_OPTIONS = {
    "": (st.just(""), st.just("")),
    "btrfs": (st.sampled_from(["", "-n 4K", "-O ^no-holes"]), st.sampled_from(["", "commit=300,nodatacow"])),
    "xfs": (st.sampled_from(["", "-m rmapbt=1,reflink=0"]), st.sampled_from(["", "wsync"])),
}


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Any valid workload."""
    fs = draw(st.sampled_from(["", "btrfs", "xfs"]))
    mkfs, mount = _OPTIONS[fs]
    workload = Workload(
        title=draw(PROSE_LINES),
        why=draw(_WHYS),
        source=draw(PROSE_LINES),
        kernels=draw(PROSE_LINES),
        expect=tuple(draw(st.lists(st.sampled_from(["data", "kernel-log", "silence"]), max_size=3))),
        sure=draw(PROSE_LINES),
        descends=draw(PROSE_LINES),
        requires=tuple(draw(st.lists(st.sampled_from(sorted(CAPABILITIES)), unique=True))),
        fs=fs,
        size=draw(st.integers(300 << 8, 1 << 20)) * 4096,
        mkfs=draw(mkfs),
        mount=draw(mount),
        memory=draw(st.one_of(st.just(0), st.integers(2048, 1 << 20).map(lambda pages: pages * 4096))),
        delay=draw(st.sampled_from(["", "data 5ms 1/4", "write 1ms nth=3 size=4K..8K at=0..1G, read 7us"])),
        seed=draw(st.integers(0, (1 << 63) - 1)),
        setup=tuple(draw(st.lists(ops(op_names(fs, setup=True)), max_size=5))),
        actors=draw(actors(fs)),
    )
    # What `validate` refuses beside each other.
    assume(fs != "btrfs" or not {"balance", "remount_ro"} <= {op.name for op in workload.iter_ops()})
    return workload
