"""`python -m gnnkern` is the command line."""

import sys

from gnnkern.cli import main

if __name__ == "__main__":
    sys.exit(main())
