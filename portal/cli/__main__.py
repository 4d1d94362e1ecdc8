"""The entry point of `portal` and `python -m portal.cli`."""

from portal import environment
from portal.cli import main


def run() -> None:
    """Take the secrets out of the environment, then run the command line."""
    environment.withdraw()
    main()


if __name__ == "__main__":
    run()
