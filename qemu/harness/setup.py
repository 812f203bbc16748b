# SPDX-License-Identifier: GPL-2.0-only
"""Fill the cache: kernels of both series, the image and dlm_tool, so that no test waits for a download."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from harness import accel, image, kernels, peer
from harness.cache import say


def main() -> None:
    """Downloads and unpacking of kernels run beside the image's build: both are mostly waiting."""
    with ThreadPoolExecutor(2) as pool:
        root = pool.submit(image.get)
        for series in kernels.SERIES:
            kernel = kernels.get(series)
            say(f"kernel {series}: {kernel.release}, initrd {kernel.initrd.stat().st_size >> 10} KiB")
        peer.dlm_tool()
        say(f"image: {root.result()}")
    say(f"accelerator: {accel.choose(kernels.get('6.12'))}")


if __name__ == "__main__":
    main()
