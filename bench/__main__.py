"""`python -m bench`, `python -m bench peers`, `python -m bench load`."""

import signal
import sys


def main(arguments: list[str]) -> int:
    """Run one benchmark; returns nonzero if something is grossly wrong."""
    # Exit normally, so that the started processes are stopped as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
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
