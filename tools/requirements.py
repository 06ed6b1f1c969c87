"""What pyproject.toml requires, a line each: to build the package, or to use it with an extra.

python tools/requirements.py build
python tools/requirements.py EXTRA
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

with Path(__file__).parents[1].joinpath("pyproject.toml").open("rb") as file:
    document = tomllib.load(file)
project = document["project"]


def with_extra(name: str) -> list[str]:
    """Of the package, and of an extra with the extras that it names."""
    found = list(project["dependencies"])
    for requirement in project["optional-dependencies"][name]:
        own = re.fullmatch(rf"{re.escape(project['name'])}\[(.*)\]", requirement)
        found += [line for extra in own[1].split(",") for line in with_extra(extra)] if own else [requirement]
    return found


what = sys.argv[1]
print(*dict.fromkeys(document["build-system"]["requires"] if what == "build" else with_extra(what)), sep="\n")
