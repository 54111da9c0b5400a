"""`python -m clusterd.agent.zygote FD`."""

from __future__ import annotations

import sys

from clusterd.agent.zygote.server import main

sys.exit(main(sys.argv[1:]))
