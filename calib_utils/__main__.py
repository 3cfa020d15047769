"""Entry point of `python -m calib_utils`."""

import sys

from calib_utils.running.cli import main

sys.exit(main())
