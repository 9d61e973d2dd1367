"""`python -m chargpt_lib.cli ...` is the command `chargpt`; torchrun starts it like this."""

import sys

from chargpt_lib.cli.main import main

sys.exit(main())
