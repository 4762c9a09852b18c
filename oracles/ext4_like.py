"""What programs got used to from ext4: an fsync commits the whole journal, so metadata is ordered.

Its maintainers do not promise it (Theodore Ts'o, linux-fsdevel 9 May 2019, "Extending the filesystem
crash recovery guaranties contract"; fast commits narrow it). Judging btrfs by it shows what a program
that relies on it would lose there.
"""

from __future__ import annotations

_JOURNAL = "ext4-like: fsync commits the running journal transaction (ext4_sync_file, jbd2)"

EXT4_LIKE_SOURCES = {
    "name": _JOURNAL,
    "directory": _JOURNAL,
    "mode": _JOURNAL,
    "owner": _JOURNAL,
    "xattr": _JOURNAL,
    "not-lost": _JOURNAL,
    "order": _JOURNAL,
}
"""Promise -> source."""
