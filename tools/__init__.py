# SPDX-License-Identifier: GPL-2.0-only
"""BPF tools on the switch's tracepoints and the DLM's. They need bcc (python3-bpfcc) and nothing else that is not in Python."""
