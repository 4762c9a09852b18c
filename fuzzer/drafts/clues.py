"""What words in a commit message mean for a workload: who takes part, how, with which options, and what is
seen. One table; `prose.py` looks the sentences up in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clue:
    """`pattern` in a sentence speaks for `what`: a part, an option or a symptom by its name."""

    what: str
    pattern: re.Pattern[str]


def _clues(*rows: tuple[str, str]) -> tuple[Clue, ...]:
    return tuple(Clue(what, re.compile(pattern, re.IGNORECASE)) for what, pattern in rows)


_RELEASE = (
    r"release_?(page|folio)|(page|folio|buffer|extent map)('s)? release|"
    r"(page|folio|buffer|extent map)s?'? (is |are |being |gets |get )?releas|"
    r"releas\w* (of )?(a |the )?(clean )?(page|folio|buffer|extent_buffer)|reclaim|shrinker|kswapd|"
    r"memory pressure|drop_caches|drop caches|try_release_extent|page migration|compaction"
)
PARTS = _clues(
    ("fsync", r"\bf(data)?sync|\bsync_file\b|\bsync[- ]?log\b|log (tree|sync|replay)|logging (an? )?inode"),
    ("dsync", r"\bo_d?sync\b|rwf_d?sync|synchronous write|\bdsync"),
    ("msync", r"\bmsync"),
    ("release", _RELEASE),
    ("evict", r"\bevict|inode (is |was )?(dropped|reclaimed) from memory|\biput\b"),
    (
        "writeback",
        r"write-?back|writing back|written back|writepage|ordered extent|delalloc|flush(er|ing)|dirty page",
    ),
    ("balance", r"relocat|\bbalanc(e|ing)\b|block group .{0,40}(read.?only|\bRO\b|moved)"),
    ("direct", r"direct[-_ ]?(io|i/o)|\bdio\b|o_direct|direct write"),
    (
        "failing",
        r"write fail|failed write|failing write|short write|write .{0,30}\bfails\b|"
        r"efault|write.{0,20} error|fault(s|ing)? .{0,30}(source|user) (buffer|page|memory)",
    ),
    ("mmap", r"\bmmap|memory[- ]mapped|page[- ]fault|page_mkwrite|write fault|mapped (write|store)|mwrite"),
    ("punch", r"punch|hole[- ]?punch"),
    ("truncate", r"truncat|i_size (down|shrink)"),
    ("zero", r"zero[- _]range|fallocate.{0,20}zero"),
    ("fallocate", r"\bfallocate|\bprealloc|unwritten extent"),
    ("collapse", r"collapse[- _]range"),
    ("insert", r"insert[- _]range"),
    ("unshare", r"\bunshar"),
    ("readahead", r"read[- _]?ahead|\breada\b"),
    ("read", r"\bread(er|ers|ing)\b|read_(page|folio)|buffered read|tree search|btrfs_search_slot"),
    (
        "metadata",
        r"extent[ _]buffer|btree inode|btree_inode|tree block|metadata (page|read|buffer)|refs_lock",
    ),
    (
        "clone",
        r"reflink|\bcow (write|fork|extent|block)|copy[- ]on[- ]write|"
        r"\bclon(e|ing)|ficlone|shared extent|remap",
    ),
    ("dedupe", r"\bdedup"),
    ("rename", r"\brenam"),
    ("link", r"hard ?link|\blinkat?\b|new name"),
    ("unlink", r"\bunlink|\brmdir|delet(e|ing|ion) .{0,25}(file|name|dentr|entr|director)"),
    ("snapshot", r"snapshot"),
    ("subvolume", r"subvol"),
    ("send", r"\bsend\b(?! (a |the |this |v\d|patch|mail|email))"),
    ("scrub", r"\bscrub"),
    ("defrag", r"defrag"),
    ("quota", r"qgroup|\bquota"),
    ("trim", r"fstrim|fitrim|\btrimming|\bdiscard(s|ing)? "),
    ("freeze", r"fifreeze|\bfreez(e|ing) the (fs|file ?system)"),
    ("xattr", r"xattr|extended attribute"),
    ("append", r"\bappend|size[- ]extending|extends? the (file|i_size)|extending write"),
    (
        "commit",
        r"transaction (is )?commit|commit(s|ted|ting)? (of )?(the |a )?(current )?transaction|"
        r"\bsync\(2\)|syncfs",
    ),
    ("write", r"buffered write|write path|\bpwrite|write\(2\)|\bwrites? to|nocow write|\bwriter"),
)
"""Who takes part in the race."""

OPTIONS = _clues(
    ("nocow", r"\bno(data)?cow\b|chattr \+c|\bnodatacow"),
    ("no-holes", r"(with|using|when) (the )?no[-_]holes|no[-_]holes (is |feature )?(enabled|set)"),
    (
        "holes",
        r"without (the )?no[-_]holes|no[-_]holes .{0,20}(disabled|not (set|enabled|used))|!no[-_]holes",
    ),
    ("compress", r"compress(ed|ion)?\b"),
    ("small-nodes", r"extent[ _]buffer|next leaf|several leaves|multiple leaves|tree level|leaf"),
    ("one-block", r"block size (smaller|less) than|sub-?page|1k block|blocksize < pagesize"),
    ("rmap", r"rmapbt|reverse mapping"),
    ("memory", r"memcg|memory cgroup|low memory|enomem|out of memory"),
    ("full", r"enospc|no space left|out of space|nearly full"),
)
"""How the file system is made and mounted, and what the machine is short of."""

SYMPTOMS = _clues(
    (
        "data",
        r"data loss|los(es|ing|e|t) .{0,30}(data|write|extent|store)|(data|writes?|extents?) .{0,25}\blost\b|"
        r"stale|zeroe?s|corrupt|not (be )?(persisted|logged)|missing (data|extent)|"
        r"old (data|content|location)|silently",
    ),
    (
        "names",
        r"(file|name|dentry|dentries|director\w+|entr\w+) .{0,25}(lost|missing|disappear|gone)|"
        r"still (there|exist)",
    ),
    ("size", r"(wrong|incorrect|old|lost|smaller) (i_|file |inode )?size|i_size .{0,20}(lost|not)"),
    ("xattr", r"xattrs? .{0,25}(lost|missing|back|still)"),
    ("fsck", r"\bfsck|btrfs check|xfs_repair|inconsisten"),
    (
        "mountable",
        r"(fail|unable|impossible|refuse)\w* to mount|mount(ing)? (will )?fail|unmountable|log replay fail",
    ),
    ("readable", r"checksum|csum|\beio\b"),
    (
        "kernel-log",
        r"\bwarn(ing|_on)?\b|\bbug(_on)?\b(?!zilla)|\bassert|\boops|transaction abort|"
        r"abort(ed|s)? (the )?transaction|use-after-free|null pointer|kasan|"
        r"panic",
    ),
    ("guest-lost", r"\bpanic|\bbug_on\b|kernel bug|\boops|use-after-free|null pointer|general protection"),
    ("hang", r"\bhang|deadlock|infinite loop|stuck|hung task|live-?lock|soft lockup"),
    (
        "silence",
        r"(no|not (really )?an?|isn.t an?|never an?) (\w+ )?(race|problem here|issue here)|"
        r"can(not|'t|not really) (happen|race)|race .{0,30}(not|n't) (exist|possible)|"
        r"(not|n't) (actually )?(possible|needed|race)|defensive",
    ),
)
"""What it is seen as: names an entry's `expect` knows."""

RACES = re.compile(
    r"\brac(e|es|ing|y)\b|concurren|in parallel|at the same time|meanwhile|simultaneous|deadlock|"
    r"cpu ?[01]\b|task [ab12]\b|another (task|thread|process)",
    re.IGNORECASE,
)
"""Words of texts that tell of a race at all."""
