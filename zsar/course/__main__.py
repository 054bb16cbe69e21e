"""``python -m zsar.course`` is ``python -m zsar course``."""

import sys

from zsar.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["course", *sys.argv[1:]]))
