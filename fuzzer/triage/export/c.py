"""The exporter `c`: one file of C, its actors threads that wait for each other where the workload says so.

Making the file system, cutting power and looking for the bug are the shell functions of the exporter `sh`.
"""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.triage.export.c_ops import HELPERS, barrier_name, call_of, quote
from fuzzer.triage.export.place import pattern
from fuzzer.triage.export.power import DIALECT, cut_command, functions
from fuzzer.triage.export.program import Block, Program, Step
from fuzzer.triage.export.sh import comment
from fuzzer.workload.model import Op

_HEAD = """\
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int root;
"""

_HELP = """\

/* Run shell words after the functions above; the status is theirs. */
static int sh(const char *words)
{
	char *command;
	int status;

	if (asprintf(&command, "%s%s\\n", functions, words) < 0)
		exit(2);
	setenv("words", command, 1);
	status = system("exec bash -c \\"$words\\"");
	free(command);
	return status;
}

static long must(long result, const char *what)
{
	if (result < 0)
		perror(what);
	return result;
}

"""

_MAIN = """\
int main(int argc, char **argv)
{
	int runs = argc > 1 ? atoi(argv[1]) : 1, seen = 0, failed = 0;
	const char *tmp = getenv("TMPDIR");
	char work[4000], mnt[4096];

	snprintf(work, sizeof(work), "%s/repro.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(work)) {
		perror(work);
		return 2;
	}
	snprintf(mnt, sizeof(mnt), "%s/mnt", work);
	setenv("work", work, 1);
	setenv("mnt", mnt, 1);
	for (int run = 1; run <= runs && !failed; run++) {
		if (sh("new_fs")) {
			failed = 1;
			break;
		}
		root = must(open(mnt, O_RDONLY | O_DIRECTORY), mnt);
		setup();
"""

_JUDGE = """\
		close(root);
		failed = sh("recover");
		setenv("mounted", failed ? "1" : "0", 1);
RECOVERED
		if (!failed && sh("bug") == 0) {
			printf("run %d: BUG: %s\\n", run, message);
			seen++;
		}
		if (sh("unplug && rm -rf $work/*"))
			failed = 1;
	}
	sh("unplug; rm -rf $work");
	if (failed)
		return 2;
	printf("the bug showed in %d of %d runs\\n", seen, runs);
	return seen > 0;
}
"""

_THREADS = """\
		for (int n = 0; n < COUNT; n++)
			pthread_create(&threads[n], NULL, actors[n], NULL);
		for (int n = 0; n < COUNT; n++)
			pthread_join(threads[n], NULL);
"""


def export_c(program: Program) -> dict[str, str]:
    """`repro.c`."""
    blocks = (program.setup, *program.actors)
    needed = {call_of(step.op, "0").helper for block in blocks for step in block.steps} - {""}
    lines = [
        "/*",
        *comment(program, " * "),
        " *",
        " * cc -pthread -o repro repro.c && ./repro [RUNS], as root. It needs 1 GB in $TMPDIR (/tmp).",
        " * Exit status: 1 if the bug showed, 0 if not, 2 if it could not run.",
        " */",
        _HEAD,
        *_barriers(program),
        *(["static volatile int counted;"] if _endless(program) else []),
        "static const char functions[] =",
        *(f'\t{quote(line)[:-1]}\\n"' for line in functions(program).splitlines()),
        "\t;",
        f"static const char message[] = {quote(program.check.message)};",
        _HELP + "\n".join(text for name, text in HELPERS.items() if name in needed),
        *_function("setup", program, program.setup),
        *(
            line
            for n, actor in enumerate(program.actors, 1)
            for line in _function(f"actor_{n}", program, actor)
        ),
        _main(program),
    ]
    return {"repro.c": "\n".join(lines).rstrip("\n") + "\n"}


def _endless(program: Program) -> bool:
    return any(actor.loop is None for actor in program.actors)


def _barriers(program: Program) -> Iterator[str]:
    for name in _barrier_ops(program):
        yield f"static pthread_barrier_t {name};"


def _barrier_ops(program: Program) -> dict[str, Op]:
    """The barriers, by their variables."""
    steps = (step for actor in program.actors for step in actor.steps)
    return {barrier_name(step.op): step.op for step in steps if step.op.name == "barrier"}


def _function(name: str, program: Program, block: Block) -> Iterator[str]:
    threaded = name != "setup"
    yield f"static void {'*' if threaded else ''}{name}({'void *unused' if threaded else 'void'})"
    yield "{"
    indent = "\t"
    if block.loop is None:
        yield "\tfor (int i = 0; counted > 0; i++) {"
    elif block.loop != 1:
        yield f"\tfor (int i = 0; i < {block.loop}; i++) {{"
    if block.loop != 1:
        indent = "\t\t"
    for step in block.steps:
        yield from (indent + line for line in _statements(program, block, step))
    if block.loop != 1:
        yield "\t}"
    if threaded:
        if _endless(program) and block.loop is not None:
            yield "\t__sync_fetch_and_sub(&counted, 1);"
        yield "\treturn NULL;"
    yield "}"
    yield ""


def _statements(program: Program, block: Block, step: Step) -> Iterator[str]:
    looped = block.loop != 1
    byte = f"(96 + {step.row} + 17 * i) % 250 + 1" if looped else f"0x{pattern(step.row):02x}"
    yield call_of(step.op, byte).text
    for note in step.notes:
        guard = f"if (i == {note.place.iteration}) " if looped else ""
        yield f"{guard}sh({quote(DIALECT.fill(note.command))});"
    cut = cut_command(program)
    if step.cut is not None and cut:
        yield f"{f'if (i == {step.cut}) ' if looped else ''}sh({quote(cut)});"


def _main(program: Program) -> str:
    actors, cut = program.actors, cut_command(program)
    count = str(len(actors))
    names = ", ".join(f"actor_{n}" for n in range(1, len(actors) + 1))
    table = f"static void *(*actors[])(void *) = {{ {names} }};\nstatic pthread_t threads[{count}];\n\n"
    main = (table if actors else "") + _MAIN
    counted = sum(actor.loop is not None for actor in actors)
    lines = [f"\t\tcounted = {counted};\n"] if _endless(program) else []
    for op in _barrier_ops(program).values():
        users = program.users(op.text("name"))
        lines.append(f"\t\tpthread_barrier_init(&{barrier_name(op)}, NULL, {users});\n")
    threads = _THREADS.replace("COUNT", count) if actors else ""
    if not any(step.cut is not None for b in (program.setup, *actors) for step in b.steps) and cut:
        threads += f"\t\tsh({quote(cut)});\n"
    recovered = "" if program.check.needs_mount else "\t\tfailed = 0;"
    judge = _JUDGE.replace("RECOVERED\n", f"{recovered}\n" if recovered else "")
    return main + "".join(lines) + threads + judge
