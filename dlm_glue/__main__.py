# SPDX-License-Identifier: GPL-2.0-only
"""``python -m dlm_glue``: see process.py. What is here goes before its imports."""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    # Until everything is imported: all of it stays, and to look for garbage in it takes a tenth of the start. process.py enables it.
    gc.disable()
    from dlm_glue.process import main

    sys.exit(main())
