"""What the loader says of a plan, by the names of inception_engine.h."""

from __future__ import annotations

import re
from pathlib import Path

_HEADER = Path(__file__).parents[1] / "inception_engine" / "runtime" / "include" / "inception_engine.h"
STATUS = {
    int(value): name
    for name, value in re.findall(r"(IE_(?:OK|ERROR_\w+|PLAN_\w+)) = (\d+)", _HEADER.read_text())
}


def verdict(data: bytes) -> str:
    """The status of the loader's check. A refusal says why in one line; an acceptance says nothing."""
    from inception_engine.binding import check_plan

    status, message = check_plan(data)
    name = STATUS[status]
    assert (name == "IE_OK") == (message == ""), (name, message)
    assert "\n" not in message and len(message.encode()) < 512
    return name
