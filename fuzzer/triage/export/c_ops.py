"""Ops as calls of C. Each op is a line that calls a helper of `HELPERS`; only the needed ones are written.

Ops that are one command of a file system's own tool (balance, quota, a dropped cache) are said as in the
shell: what they do is in the kernel, not in who asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from fuzzer.errors import InputError
from fuzzer.triage.export.power import DIALECT
from fuzzer.triage.export.shell_ops import Words, say
from fuzzer.workload.model import ITERATION, Draw, Op

HELPERS = {
    "create": """\
static void do_create(const char *path, mode_t mode, int flags)
{
	close(must(openat(root, path, O_CREAT | O_EXCL | O_RDWR | flags, mode), path));
}
""",
    "write": """\
static void do_write(const char *path, off_t off, size_t len, int byte, int flags, int rwf, int buffers)
{
	char *data = aligned_alloc(4096, (len + 4095) & ~4095UL);
	size_t size = ((len + 511) / 512 + buffers - 1) / buffers * 512, at;
	struct iovec iov[64];
	int n = 0, fd = must(openat(root, path, O_RDWR | flags), path);

	memset(data, byte, len);
	for (at = 0; at < len; at += size)
		iov[n++] = (struct iovec) { data + at, len - at < size ? len - at : size };
	must(pwritev2(fd, iov, n, off, rwf), path);
	close(fd);
	free(data);
}
""",
    "awrite": """\
/* Direct writes that are all under way at once. */
static void do_awrite(const char *path, off_t off, size_t len, int byte, int flags, int rwf, int parts)
{
	char *data = aligned_alloc(4096, (len + 4095) & ~4095UL);
	size_t size = ((len + 511) / 512 + parts - 1) / parts * 512, at;
	struct iocb requests[64] = { 0 }, *list[64];
	struct io_event events[64];
	aio_context_t context = 0;
	int n = 0, fd = must(openat(root, path, O_RDWR | O_DIRECT | flags), path);

	memset(data, byte, len);
	for (at = 0; at < len; at += size, n++) {
		requests[n].aio_lio_opcode = IOCB_CMD_PWRITE;
		requests[n].aio_fildes = fd;
		requests[n].aio_buf = (unsigned long)(data + at);
		requests[n].aio_nbytes = len - at < size ? len - at : size;
		requests[n].aio_offset = off + at;
		requests[n].aio_rw_flags = rwf;
		list[n] = &requests[n];
	}
	must(syscall(SYS_io_setup, 64, &context), "io_setup");
	must(syscall(SYS_io_submit, context, n, list), path);
	must(syscall(SYS_io_getevents, context, n, n, events, NULL), path);
	syscall(SYS_io_destroy, context);
	close(fd);
	free(data);
}
""",
    "fault_write": """\
/* Write from memory that cannot be read behind its first `good` bytes: a short count. */
static void do_fault_write(const char *path, off_t off, size_t len, size_t good, int byte)
{
	size_t readable = (good + 4095) & ~4095UL;
	char *map = mmap(NULL, readable + len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = must(openat(root, path, O_RDWR), path);

	must(mprotect(map, readable, PROT_READ | PROT_WRITE), "mprotect");
	memset(map, byte, readable);
	must(pwrite(fd, map + readable - good, len, off), path);
	close(fd);
	munmap(map, readable + len);
}
""",
    "mwrite": """\
static void do_mwrite(const char *path, off_t off, size_t len, int byte, int sync)
{
	off_t start = off & ~4095L;
	int fd = must(openat(root, path, O_RDWR), path);
	char *map = mmap(NULL, off - start + len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, start);

	memset(map + (off - start), byte, len);
	if (sync)
		must(msync(map, off - start + len, sync), path);
	munmap(map, off - start + len);
	close(fd);
}
""",
    "read": """\
static void do_read(const char *path, off_t off, size_t len, int flags)
{
	void *data = aligned_alloc(4096, (len + 4095) & ~4095UL);
	int fd = must(openat(root, path, O_RDONLY | flags), path);

	must(pread(fd, data, len, off), path);
	close(fd);
	free(data);
}
""",
    "mapped_write": """\
/* Write what is at `src` of the same file, from a mapping of it. */
static void do_mapped_write(const char *path, off_t src, off_t off, size_t len, int flags)
{
	off_t start = src & ~4095L;
	int fd = must(openat(root, path, O_RDWR | flags), path);
	char *map = mmap(NULL, src - start + len, PROT_READ, MAP_SHARED, fd, start);

	must(pwrite(fd, map + (src - start), len, off), path);
	munmap(map, src - start + len);
	close(fd);
}
""",
    "unlink": """\
static void do_unlink(const char *path, int sync)
{
	int fd = sync ? must(openat(root, path, O_RDONLY), path) : -1;

	must(unlinkat(root, path, 0), path);
	if (sync) {
		fsync(fd);
		close(fd);
	}
}
""",
    "truncate": """\
static void do_truncate(const char *path, off_t size, int flags)
{
	int fd = must(openat(root, path, O_RDWR | flags), path);

	must(ftruncate(fd, size), path);
	close(fd);
}
""",
    "fallocate": """\
static void do_fallocate(const char *path, int mode, off_t off, off_t len)
{
	int fd = must(openat(root, path, O_RDWR), path);

	must(fallocate(fd, mode, off, len), path);
	close(fd);
}
""",
    "clone": """\
static void do_clone(const char *from, const char *to, off_t src, off_t off, off_t len)
{
	int fd = must(openat(root, to, O_RDWR), to);
	struct file_clone_range range = { must(openat(root, from, O_RDONLY), from), src, len, off };

	must(ioctl(fd, FICLONERANGE, &range), to);
	close(range.src_fd);
	close(fd);
}
""",
    "fsync": """\
static void do_fsync(const char *path, int data)
{
	int fd = must(openat(root, path, O_RDONLY), path);

	must(data ? fdatasync(fd) : fsync(fd), path);
	close(fd);
}
""",
    "chmod": """\
static void do_chmod(const char *path, mode_t mode)
{
	int fd = must(openat(root, path, O_RDONLY), path);

	must(fchmod(fd, mode), path);
	close(fd);
}
""",
    "spin": """\
static void do_spin(long us)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - start.tv_sec) * 1000000 + (now.tv_nsec - start.tv_nsec) / 1000 < us);
}
""",
}
"""`must` and `root` are the program's; `root` is the open mount."""


@dataclass(frozen=True, slots=True)
class Call:
    """A statement, and the helper it needs (empty: none)."""

    text: str
    helper: str = ""


@dataclass(frozen=True, slots=True)
class _Args:
    op: Op
    byte: str

    def path(self, key: str = "path") -> str:
        path = self.op.text(key)
        if ITERATION in path:
            hint = "try --format sh, or powercut minimize: it may not be needed"
            raise InputError(f"names that count, such as {path}, cannot be said in C", hint=hint)
        return quote(path)

    def number(self, key: str) -> str:
        value = self.op[key]
        if isinstance(value, Draw):
            count = (value.high - value.low) // value.step + 1
            return f"{value.low} + random() % {count} * {value.step}"
        return str(value)

    def mode(self) -> str:
        return f"0{self.op['mode']:o}"

    def range(self) -> str:
        return f"{self.number('off')}, {self.number('len')}"

    def at(self, call: str, *keys: str) -> str:
        """`call(root, path, root, path)`, checked."""
        paths = ", ".join(f"root, {self.path(key)}" for key in keys)
        return f"must({call}({paths}), {self.path(keys[0])});"


def quote(text: str) -> str:
    """A string of C. JSON's escapes of plain text are C's."""
    if all(c.isascii() and (c.isprintable() or c in "\t\n") for c in text):
        return json.dumps(text)
    return '"' + "".join(f"\\{byte:03o}" for byte in text.encode()) + '"'


_RWF = {"none": "", "nowait": "RWF_NOWAIT", "dontcache": "0x80", "atomic": "0x40"}
"""The last two, RWF_DONTCACHE and RWF_ATOMIC, are younger than most headers."""

_OPEN = {"none": "0", "dsync": "O_DSYNC", "sync": "O_SYNC", "rwf_dsync": "0"}
_MSYNC = {"none": "0", "async": "MS_ASYNC", "sync": "MS_SYNC"}
_FALLOCATE = {
    "alloc": "0",
    "keep": "FALLOC_FL_KEEP_SIZE",
    "punch": "FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE",
    "zero": "FALLOC_FL_ZERO_RANGE",
    "zero_keep": "FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE",
    "collapse": "FALLOC_FL_COLLAPSE_RANGE",
    "insert": "FALLOC_FL_INSERT_RANGE",
    "unshare": "FALLOC_FL_UNSHARE_RANGE",
}


def _write(a: _Args, direct: str = "") -> str:
    flags = " | ".join(filter(lambda f: f != "0", (direct, _OPEN[a.op.text("sync")]))).strip(" |") or "0"
    return f"do_write({a.path()}, {a.range()}, {a.byte}, {flags}, {_rwf(a)}, {a.number('buffers')});"


def _rwf(a: _Args) -> str:
    asked = "RWF_DSYNC" if a.op.text("sync") == "rwf_dsync" else ""
    return " | ".join(filter(None, (asked, _RWF[str(dict(a.op.args).get("rwf", "none"))]))) or "0"


def _awrite(a: _Args) -> str:
    flags = _OPEN[a.op.text("sync")]
    return f"do_awrite({a.path()}, {a.range()}, {a.byte}, {flags}, {_rwf(a)}, {a.number('parts')});"


def _append(a: _Args) -> str:
    flags = " | ".join(flag for flag in ("O_APPEND", _OPEN[a.op.text("sync")]) if flag != "0")
    return f"do_write({a.path()}, 0, {a.number('len')}, {a.byte}, {flags}, {_rwf(a)}, 1);"


def _rename(a: _Args) -> str:
    flags = {
        "none": "0",
        "exchange": "RENAME_EXCHANGE",
        "noreplace": "RENAME_NOREPLACE",
        "whiteout": "RENAME_WHITEOUT",
    }
    return (
        f"must(renameat2(root, {a.path('from')}, root, {a.path('to')}, {flags[a.op.text('flags')]}),"
        f" {a.path('from')});"
    )


_CALLS: dict[str, tuple[str, Callable[[_Args], str]]] = {
    "create": ("create", lambda a: f"do_create({a.path()}, {a.mode()}, {_OPEN[a.op.text('flags')]});"),
    "mkdir": ("", lambda a: f"must(mkdirat(root, {a.path()}, {a.mode()}), {a.path()});"),
    "symlink": (
        "",
        lambda a: f"must(symlinkat({quote(a.op.text('target'))}, root, {a.path()}), {a.path()});",
    ),
    "link": (
        "",
        lambda a: f"must(linkat(root, {a.path('from')}, root, {a.path('to')}, 0), {a.path('from')});",
    ),
    "rename": ("", _rename),
    "unlink": ("unlink", lambda a: f"do_unlink({a.path()}, {int(a.op.text('fsync') == 'yes')});"),
    "mapped_write": (
        "mapped_write",
        lambda a: (
            f"do_mapped_write({a.path()}, {a.number('src')}, {a.range()},"
            f" {'O_DIRECT' if a.op.text('direct') == 'yes' else '0'});"
        ),
    ),
    "rmdir": ("", lambda a: f"must(unlinkat(root, {a.path()}, AT_REMOVEDIR), {a.path()});"),
    "write": ("write", _write),
    "append": ("write", _append),
    "dwrite": ("write", lambda a: _write(a, "O_DIRECT")),
    "awrite": ("awrite", _awrite),
    "fault_write": (
        "fault_write",
        lambda a: f"do_fault_write({a.path()}, {a.range()}, {a.number('good')}, {a.byte});",
    ),
    "mwrite": (
        "mwrite",
        lambda a: f"do_mwrite({a.path()}, {a.range()}, {a.byte}, {_MSYNC[a.op.text('msync')]});",
    ),
    "read": (
        "read",
        lambda a: f"do_read({a.path()}, {a.range()}, {'O_DIRECT' if a.op.text('direct') == 'yes' else '0'});",
    ),
    "truncate": (
        "truncate",
        lambda a: f"do_truncate({a.path()}, {a.number('size')}, {_OPEN[a.op.text('flags')]});",
    ),
    "otrunc": ("truncate", lambda a: f"do_truncate({a.path()}, 0, O_TRUNC);"),
    "fallocate": (
        "fallocate",
        lambda a: f"do_fallocate({a.path()}, {_FALLOCATE[a.op.text('mode')]}, {a.range()});",
    ),
    "clone": (
        "clone",
        lambda a: (
            f"do_clone({a.path('from')}, {a.path('to')}, {a.number('src')}, {a.number('off')},"
            f" {a.number('len')});"
        ),
    ),
    "chmod": ("chmod", lambda a: f"do_chmod({a.path()}, {a.mode()});"),
    "fsync": ("fsync", lambda a: f"do_fsync({a.path()}, 0);"),
    "fdatasync": ("fsync", lambda a: f"do_fsync({a.path()}, 1);"),
    "sync": ("", lambda a: "sync();"),
    "syncfs": ("", lambda a: 'must(syncfs(root), "syncfs");'),
    "sleep": ("", lambda a: f"usleep({a.number('us')});"),
    "spin": ("spin", lambda a: f"do_spin({a.number('us')});"),
    "barrier": ("", lambda a: f"pthread_barrier_wait(&{barrier_name(a.op)});"),
}


def barrier_name(op: Op) -> str:
    """The variable of a barrier."""
    name = "".join(c if c.isalnum() and c.isascii() else f"_{ord(c)}" for c in op.text("name"))
    return f"barrier_{name}"


def call_of(op: Op, byte: str) -> Call:
    """The statement of an op. InputError if neither C nor a command says it."""
    if op.name in _CALLS:
        helper, make = _CALLS[op.name]
        return Call(make(_Args(op, byte)), helper)
    return Call(f"sh({quote(say(Words(op, DIALECT, byte)))});")
