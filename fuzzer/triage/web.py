"""Web: the campaign's database in a browser, by datasette, for reading and on the loopback only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fuzzer.errors import MissingCapabilityError

if TYPE_CHECKING:
    from datasette.app import Datasette

LOOPBACK = "127.0.0.1"

_SETTINGS = {"allow_download": False, "suggest_facets": False, "default_page_size": 200}
_TABLES = {
    "findings": {
        "description": "Findings of this campaign, those found last first",
        "sort_desc": "created",
        "facets": ["bucket", "status", "known", "fs"],
        "label_column": "id",
    },
    "buckets": {"description": "How often each bucket was seen", "sort_desc": "hits"},
    "totals": {"description": "What was looked at, over all sessions", "sort_desc": "value"},
}


def make_site(directory: Path) -> Datasette:
    """The site of the campaign in `directory`. Its database is opened for reading only.

    MissingCapabilityError if datasette is not installed.
    """
    try:
        from datasette.app import Datasette
    except ImportError as error:
        raise MissingCapabilityError(
            "datasette is not installed", hint="pip install 'powercut[web]'"
        ) from error
    metadata = {
        "title": f"powercut campaign {directory.resolve().name}",
        "databases": {"campaign": {"tables": _TABLES}},
    }
    return Datasette([str(directory / "campaign.db")], metadata=metadata, settings=_SETTINGS)


def serve(directory: Path, port: int) -> None:
    """Serve the campaign until Ctrl-C."""
    site = make_site(directory)
    import uvicorn

    uvicorn.run(site.app(), host=LOOPBACK, port=port, log_level="warning")
