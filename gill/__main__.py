"""``python -m gill``: hands over to the command, which lies where files may be read."""

import sys

from flows.cli import main

sys.exit(main())
