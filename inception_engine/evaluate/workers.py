"""Parts of a collection classified by processes on several machines, over Ray Data.

Every process has an engine of its own on the same plan, which this process sends; results come back here, and are
written here. Images are read by the machine that classifies them, under the path by which this one knows them: they lie
on storage that all share, and relative paths begin at the same folder. Results are those of one machine to the last
bit where processors have one instruction set (``Engine.isa``); another rounds differently.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

from inception_engine import packages
from inception_engine.errors import CollectionError, EngineError, ImageUnreadable
from inception_engine.evaluate.collection import Collection

if TYPE_CHECKING:
    from inception_engine.engine import Engine

Row = dict[str, Any]


def classify(
    collection: Collection,
    plan: bytes,
    *,
    device: str = "auto",
    threads: int = 0,
    progress: Callable[[int], None] = lambda images: None,
) -> None:
    """Classify the parts of a collection that have no results yet, and write them.

    On the Ray cluster that `ray start` or RAY_ADDRESS names, or on one of this machine alone, which ends with the work.
    ``device``: as of Engine; with "cuda" every process has a GPU of its own. ``threads`` of each process: 0 is one, and
    as many processes as there are processors. ``progress`` is told the number of images of each part that is done.
    Raises PackageError, and CollectionError where a machine cannot do its part; parts that are done stay.
    """
    ray = packages.load("ray")
    packages.load("ray.data")
    missing = collection.missing()
    if not missing:
        return
    kind, each = ("GPU", 1) if device.startswith("cuda") else ("CPU", threads or 1)
    with _cluster(ray):
        room = sum(int(node["Resources"].get(kind, 0) // each) for node in ray.nodes() if node["Alive"])
        if room == 0:
            raise CollectionError(f"no machine of Ray's cluster has {each} {kind}{'s' * (each > 1)}")
        rows = ray.data.from_items(
            [{"part": part, "paths": json.dumps(list(collection.part(part)))} for part in missing],
            override_num_blocks=len(missing),  # a process takes a part at a time
        ).map(
            Classifier,
            fn_constructor_args=(ray.put(plan), collection.top_k, device, threads or 1, os.getcwd()),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(room, len(missing))),
            **{f"num_{kind.lower()}s": each},
        )
        try:
            for row in rows.iter_rows():
                _check(row)
                collection.write(row["part"], json.loads(row["results"]))
                progress(len(collection.part(row["part"])))
        except ray.exceptions.RayTaskError:  # not foreseen in ``Classifier``: its traceback is wanted
            raise
        except ray.exceptions.RayError as error:
            line = next(filter(None, map(str.strip, reversed(str(error).splitlines()))), "")
            raise CollectionError(f"Ray: {line or type(error).__name__}") from None


class Classifier:
    """What runs in each process: an engine, made when the first part comes."""

    def __init__(self, plan: Any, top_k: int, device: str, threads: int, folder: str) -> None:
        """``plan``: Ray's reference to the plan's content. ``folder``: at which relative paths begin."""
        self.plan, self.top_k, self.device, self.threads = plan, top_k, device, threads
        self.engine: Engine | None = None
        with suppress(OSError):  # nothing is lost where all paths are absolute
            os.chdir(folder)
        self.in_folder = os.getcwd() == folder

    def __call__(self, row: Row) -> Row:
        """A part's number and paths (JSON: a path need not be text that Arrow takes) to its number, results (JSON), the
        paths that cannot be opened here (JSON), and the error that kept it from being done at all, or ""."""
        done = {
            "part": row["part"],
            "machine": platform.node(),
            "results": "",
            "unreadable": "[]",
            "error": "",
        }
        paths = json.loads(row["paths"])
        if not self.in_folder and not all(map(os.path.isabs, paths)):
            return {**done, "error": "the folder where relative paths begin is not there; give absolute ones"}
        try:
            found = list(self._opened().classify_each(paths, self.top_k))
        except EngineError as error:
            return {**done, "error": str(error) or type(error).__name__}
        unreadable = [each.path for each in found if isinstance(each.error, ImageUnreadable)]
        documents = [each.document() for each in found]
        return {**done, "results": json.dumps(documents), "unreadable": json.dumps(unreadable)}

    def _opened(self) -> Engine:
        if self.engine is None:
            import ray

            from inception_engine.engine import Engine

            self.engine = Engine(ray.get(self.plan), device=self.device, threads=self.threads)
        return self.engine


def _check(row: Row) -> None:
    """Raises CollectionError for a part that was not done, or whose images are readable here and were not there."""
    if row["error"]:
        raise CollectionError(f"machine {row['machine']}: {row['error']}")
    for path in json.loads(row["unreadable"]):
        if os.path.isfile(path) and os.access(path, os.R_OK):
            raise CollectionError(
                f"machine {row['machine']} cannot read {path}, which is here: images must lie on storage that all share"
            )


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """Connected to Ray; what was started here ends here.

    Ray prints what it must, such as the end of a lost machine's log, to standard error: standard output is for results.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    logger = logging.getLogger("ray.data")
    level = logger.level
    with redirect_stdout(sys.stderr):
        begun = not ray.is_initialized()
        if begun:
            try:
                ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
                raise CollectionError(f"Ray cannot be started: {str(error).splitlines()[0]}") from None
        context = ray.data.DataContext.get_current()
        before = context.enable_progress_bars, context.print_on_execution_start
        context.enable_progress_bars = context.print_on_execution_start = False
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            context.enable_progress_bars, context.print_on_execution_start = before
            logger.setLevel(level)
            if begun:
                ray.shutdown()
