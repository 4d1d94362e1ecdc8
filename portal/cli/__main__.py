"""`portal` and `python -m portal.cli`: how the portal is started, and starts itself."""

from portal import environment
from portal.cli import main


def run() -> None:
    """Take the secrets out of the environment, then do what the command line says."""
    environment.withdraw()
    main()


if __name__ == "__main__":
    run()
