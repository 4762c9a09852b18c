"""HTML, built so that text cannot become markup: everything that is not `Html` already is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Html(str):
    """Markup that is safe to put into a page."""

    __slots__ = ()


def escape(text: str) -> Html:
    """`text` as markup. Control characters, which no page may have, become what Python calls them."""
    shown = "".join(c if c in "\n\t" or c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if isinstance(text, Html) else Html(html.escape(shown))


def element(name: str, *children: str, **attributes: str | int | float) -> Html:
    """`<name attributes>children</name>`. A trailing `_` of an attribute is dropped, others become `-`."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{pairs}>{''.join(map(escape, children))}</{name}>")


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> Html:
    """A table; each row has the name of its class (may be empty) and its cells."""
    top = element("tr", *(element("th", cell) for cell in head))
    body = (element("tr", *(element("td", cell) for cell in cells), class_=name) for name, cells in rows)
    return element("div", element("table", top, *body), class_="wide")


def section(title: str, *children: str) -> Html:
    return element("section", element("h2", title), *children)


def page(title: str, *children: str) -> str:
    """A whole page that needs nothing from anywhere: no script, no font, no picture, no network."""
    policy = (
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'"
    )
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        Html(policy + '">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Html(_STYLE)),
    )
    body = element("body", element("main", element("h1", title), *children))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


_STYLE = """
:root { color-scheme: light dark; --bg: #fff; --fg: #1b1f24; --dim: #5b6570; --line: #d5dae0; --soft: #f4f6f8;
  --bad: #b3261e; --bad-soft: #fbe9e7; --good: #1a6b3c; --bar: #b9cfe8; --key: #f2b65a; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171a; --fg: #e4e7ea; --dim: #9aa4ae; --line: #353c43;
  --soft: #1d2226; --bad: #ff8a80; --bad-soft: #3a1f1d; --good: #7fd39c; --bar: #2f4a68; --key: #8a5a12; } }
body { margin: 0; background: var(--bg); color: var(--fg); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.35rem; line-height: 1.3; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; overflow-wrap: anywhere; } .dim { color: var(--dim); } .bad { color: var(--bad); }
pre, code, td, svg text { font-family: ui-monospace, monospace; font-size: 13px; }
pre { background: var(--soft); border: 1px solid var(--line); padding: .7rem; overflow-x: auto;
  margin: .4rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th { text-align: left; color: var(--dim); font-weight: 600; font-size: 13px; }
th, td { padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr.bad td { background: var(--bad-soft); color: var(--bad); } tr.dim td { color: var(--dim); }
tr.cut td { border-bottom: 3px double var(--bad); color: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
dt { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; }
svg { display: block; }
svg text { fill: var(--fg); } svg .dim { fill: var(--dim); } svg .bad { fill: var(--bad); }
svg .lane { stroke: var(--line); } svg .bar { fill: var(--bar); } svg .key { fill: var(--key); }
svg .cut { stroke: var(--bad); stroke-width: 2; }
svg .curve { stroke: var(--bad); fill: none; stroke-width: 2; }
svg .known { stroke: var(--dim); }
"""
