"""`python -m bench`, `python -m bench peers`, `python -m bench load`."""

import signal
import sys


def main(arguments: list[str]) -> int:
    """Run one bench; not 0 where something is grossly wrong."""
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit("ended from outside")
    )  # so that what was started is ended, too
    match arguments:
        case []:
            from bench.speed import main as run
        case ["peers"]:
            from bench.peers import main as run
        case ["load"]:
            from bench.load import main as run
        case _:
            sys.exit("usage: python -m bench [peers | load]")
    return min(run(), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
