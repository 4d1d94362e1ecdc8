"""What stands around the cards of a page, taken from the portal's own answer, for the bare
application to render.

So the bare page follows every change of layout; only the card itself is written by hand
(`bare.html`), and `compare` tells when it no longer is what the portal answers.
"""

import re
from pathlib import Path

_CARD = '<li class="card '
_TAG = re.compile(r"<(/?[a-z0-9]+)")


def write_frames(folder: Path, page: str, fragment: str) -> None:
    """Make `page.html` and `fragment.html` in `folder`, as `bench.bare` reads them. Both are
    answers for page one."""
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
    """How many times as many bytes the bare answer has, and whether both have the same tags in the
    same order."""
    return len(bare.encode()) / len(ours.encode()), _TAG.findall(ours) == _TAG.findall(bare)
