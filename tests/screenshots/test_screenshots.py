"""Every picture that README and docs show can be taken from the demo, by the command that takes
them."""

from pathlib import Path

from playwright.sync_api import Browser

from tests.architecture.test_docs import MOST_BYTES_OF_A_PICTURE, pictures_named
from tests.support.screenshots.taking import PHONE_DARK, PICTURES, WIDE, take

PNG = b"\x89PNG\r\n\x1a\n"


def width_of(picture: bytes) -> int:
    """Return the width of a PNG in pixels."""
    return int.from_bytes(picture[16:20])


def test_every_picture_of_readme_and_docs_is_taken_from_the_demo(
    browser: Browser, tmp_path: Path
) -> None:
    into = tmp_path / "pictures"
    data = tmp_path / "data"
    into.mkdir()
    data.mkdir()
    take(browser, data, into)
    assert set(PICTURES) == pictures_named()
    widths = {WIDE["viewport"]["width"], PHONE_DARK["viewport"]["width"]}
    for name in PICTURES:
        picture = (into / name).read_bytes()
        assert picture.startswith(PNG), name
        assert len(picture) < MOST_BYTES_OF_A_PICTURE, name
        assert width_of(picture) in widths, name
