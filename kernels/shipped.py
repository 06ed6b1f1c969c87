"""The Inception modules that ``module`` is compiled for ahead of time: those of the paper's GoogLeNet at 224 x 224.

Others (another third branch, another size of images or of groups) are compiled by Triton when they are first run from
Python; in the C library ``walk`` runs them.
"""

from __future__ import annotations

from inception_engine.kernels.sizes import Sizes

# Compute capabilities with TMA for which it spills nothing; on 12.0, whose tensor cores take registers, it does.
ARCHITECTURES = (90, 100)
DTYPES = ("fp16", "bf16")

# Table 1 of the paper: pixels of a side and channels of the input; 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, projection.
MODULES = {
    "3a": (28, 192, (64, 96, 128, 16, 32, 32)),
    "3b": (28, 256, (128, 128, 192, 32, 96, 64)),
    "4a": (14, 480, (192, 96, 208, 16, 48, 64)),
    "4b": (14, 512, (160, 112, 224, 24, 64, 64)),
    "4c": (14, 512, (128, 128, 256, 24, 64, 64)),
    "4d": (14, 512, (112, 144, 288, 32, 64, 64)),
    "4e": (14, 528, (256, 160, 320, 32, 128, 128)),
    "5a": (7, 832, (256, 160, 320, 32, 128, 128)),
    "5b": (7, 832, (384, 192, 384, 48, 128, 128)),
}


def sizes_of(name: str) -> Sizes:
    """As the compiler lays the module out: the 5x5 reduce's channels are padded to a multiple of 16."""
    side, channels, (n1, c3, n3, c5, n5, n_pool) = MODULES[name]
    widths = (n1, c3, n3, -(-c5 // 16) * 16, n5, n_pool)
    return Sizes(height=side, width=side, channels=channels, widths=widths, reduced=c3 + c5)
