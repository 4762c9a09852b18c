"""Are all rows there whose commit the writer had announced before the crash, in a sound database?"""

import os
import sqlite3
import sys
from pathlib import Path

promised = [int(line) for line in Path(os.environ["POWERCUT_MARKS"]).read_text().splitlines()]
if not promised:
    sys.exit(0)
try:
    db = sqlite3.connect("file:rows.db?mode=rw", uri=True)
    (sound,) = db.execute("PRAGMA integrity_check").fetchone()
    rows = [number for (number,) in db.execute("SELECT number FROM rows ORDER BY number")]
except sqlite3.DatabaseError as error:
    sys.exit(f"corrupt: {error}")
if sound != "ok":
    sys.exit(f"corrupt: {sound}")
if rows[: len(promised)] != promised:
    sys.exit(f"{len(promised)} rows were committed, there are {len(rows)}")
