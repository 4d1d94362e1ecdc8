"""`make screenshots`: write the pictures to the folder that is named."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.support.peers import CHROMIUM, CHROMIUM_FLAGS
from tests.support.screenshots.taking import PICTURES, take


def main() -> None:
    """Take the pictures into the folder given as the only argument."""
    into = Path(sys.argv[1])
    into.mkdir(parents=True, exist_ok=True)
    with (
        sync_playwright() as playwright,
        tempfile.TemporaryDirectory(prefix="portal-screenshots-") as data,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        take(browser, Path(data), into)
        browser.close()
    sys.stdout.write(f"· {len(PICTURES)} pictures in {into}\n")


if __name__ == "__main__":
    main()
