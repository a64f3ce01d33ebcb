"""``python -m flows.cli``, where the package is not installed."""

import sys

from flows.cli.app import main

sys.exit(main())
