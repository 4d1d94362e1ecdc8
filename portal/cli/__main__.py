"""`python -m portal.cli`: how the portal starts itself."""

from portal.cli import main

if __name__ == "__main__":
    main()
