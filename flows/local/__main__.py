"""``python -m flows.local``."""

import sys

from flows.local.main import main

sys.exit(main())
