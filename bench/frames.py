"""The text around the cards of a page, from the portal's response, for the bare application.

The bare page thus follows every layout change; only the card itself is written by hand
(`bare.html`), and `compare` detects when it differs from the portal's.
"""

import re
from pathlib import Path

_CARD = '<li class="card '
_TAG = re.compile(r"<(/?[a-z0-9]+)")


def write_frames(folder: Path, page: str, fragment: str) -> None:
    """Write `page.html` and `fragment.html` to `folder` for `bench.bare`.

    Both arguments are responses for the first page.
    """
    card = (Path(__file__).parent / "bare.html").read_text()
    for name, html in (("page.html", page), ("fragment.html", fragment)):
        (folder / name).write_text(_frame(html, card))


def _frame(html: str, card: str) -> str:
    begin = html.index(_CARD)
    last = html.rindex(_CARD)
    end = html.index("\n</li>", last) + len("\n</li>")
    sprite = re.search(r'href="([^"#]*icons[^"#]*)#', html)
    before = html[:begin]
    after = html[end:]
    after = re.sub(r'ids=[^"]+', 'ids={{ servers|map(attribute="server_id")|join(",") }}', after)
    after = re.sub(
        r'cursor=[^"]+', "cursor={{ servers[-1].server_id }}~{{ servers[-1].server_id }}", after
    )
    return before + card.strip().replace("SPRITE", sprite[1] if sprite else "") + after


def compare(ours: str, bare: str) -> tuple[float, bool]:
    """Return the ratio of the bare response's bytes, and whether all tags are the same."""
    return len(bare.encode()) / len(ours.encode()), _TAG.findall(ours) == _TAG.findall(bare)
