# SPDX-License-Identifier: GPL-2.0-only
"""dlm_glue: takes dlm_controld's seat for the kernel's unmodified DLM; each lockspace is one group of the switch."""
