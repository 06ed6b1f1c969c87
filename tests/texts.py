"""Texts that a file may hold where a Spec's repr is expected."""

from __future__ import annotations

NO_SPECS = [
    "",
    "Evil(width=2.0)",
    "a.Spec(width=2.0)",
    "Spec",
    "Spec()()",
    "Spec(2.0)",
    "Spec(*())",
    "Spec(**{'width': 2.0})",
    "Spec(depth=2)",
    "Spec(width=math.inf)",
    "Spec(width=abs(2))",
    "Spec(width='wide')",
    "Spec(width=99.0)",
    "Spec(pool_kernels=3)",
    "__import__('os').abort()",
    "Spec(width=2.0",
    "Spec(width=2.0)\0",
    f"Spec(width=1{400 * '0'})",  # no float is so large
    f"Spec(width=1{5000 * '0'})",
    f"Spec(width={200_000 * '-'}1)",  # no memory of the parser's is enough
    f"Spec(width=1{100_000 * '+1'})",
    f"Spec(width={1000 * '('}1{1000 * ')'})",
]
