"""Large collections in parts: what is written, what a second run does, and that Ray's processes agree with one run."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import inception_engine as ie
from inception_engine import cli
from inception_engine.errors import CollectionError
from inception_engine.evaluate import workers
from inception_engine.evaluate.collection import Collection
from inception_engine.evaluate.workers import Classifier

Captured = pytest.CaptureFixture[str]
PART_SIZE = 4
IMAGES = 10  # of which one cannot be read: three parts, the last smaller


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small.plan`, and `photos` with images, of which one is damaged."""
    folder = tmp_path_factory.mktemp("collection")
    network = ie.googlenet(width=0.1, input_size=32, classes=10)
    ie.compile(network, batches=[1, 4]).save(folder / "small.plan")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        picture = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        picture.save(folder / "photos" / f"{index:02}.png")
    (folder / "photos" / "05.png").write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray, connected to a cluster of two nodes, each with a processor for one process; ``lose`` ends one of them."""
    ray = pytest.importorskip("ray", reason="backend ray: ray is not installed")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    node: dict[str, Any] = {
        "num_cpus": 1,
        "num_gpus": 0,
        "object_store_memory": 80_000_000,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=node)
    second = cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    assert len(ray.nodes()) == 2
    cluster.lose = lambda: cluster.remove_node(second, allow_graceful=False)  # type: ignore[attr-defined]
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def paths(folder: Path) -> list[str]:
    return sorted(map(str, (folder / "photos").iterdir()))


def collection(folder: Path, results: Path) -> Collection:
    return Collection(results, paths(folder), (folder / "small.plan").read_bytes(), 3, PART_SIZE)


def classifier(folder: Path) -> Classifier:
    """With its engine, which else comes through Ray."""
    found = Classifier(None, 3, "auto", 1, os.getcwd())
    found.engine = ie.Engine(folder / "small.plan", threads=1)
    return found


def test_parts_hold_what_one_run_says(folder: Path, tmp_path: Path) -> None:
    found = collection(folder, tmp_path / "results")
    assert (found.parts, found.missing()) == (3, [0, 1, 2])
    worker = classifier(folder)
    for part in (2, 0, 1):  # in any order
        row = worker({"part": part, "paths": json.dumps(found.part(part))})
        assert (row["part"], row["error"], row["unreadable"]) == (part, "", "[]")
        found.write(part, json.loads(row["results"]))
    assert found.missing() == []
    assert worker.engine is not None
    expected = worker.engine.classify(folder / "photos", top_k=3)
    again = list(collection(folder, tmp_path / "results").results())
    assert [result.document() for result in again] == [result.document() for result in expected]
    assert again[5].error is not None and "neither JPEG nor PNG" in str(again[5].error)
    assert len(again[0].top) == 3
    assert sorted(os.listdir(tmp_path / "results")) == [
        "collection.json", "part-000000.json", "part-000001.json", "part-000002.json",
    ]  # fmt: skip


def test_a_folder_is_of_one_collection(folder: Path, tmp_path: Path) -> None:
    plan = (folder / "small.plan").read_bytes()
    Collection(tmp_path / "results", ["a", "b"], plan, 3, 4)
    for arguments, word in (
        ((["a", "b"], plan + b"\0", 3, 4), "another plan"),
        ((["a"], plan, 3, 4), "other images"),
        ((["a", "b"], plan, 2, 4), "another --top-k"),
        ((["a", "b"], plan, 3, 5), "another --part-size"),
    ):
        with pytest.raises(CollectionError, match=f"holds results of {word}; give another folder"):
            Collection(tmp_path / "results", *arguments)
    with pytest.raises(CollectionError, match="holds other files than results"):
        Collection(folder, ["a"], plan, 3, 4)
    with pytest.raises(CollectionError, match="parts of 0 images"):
        Collection(tmp_path / "new", ["a"], plan, 3, 0)
    with pytest.raises(FileNotFoundError):
        Collection(tmp_path / "no" / "folder", ["a"], plan, 3, 4)
    odd = os.fsdecode(b"\xff.png")  # a name that is not text
    Collection(tmp_path / "odd", [odd], plan, 3, 4)
    assert Collection(tmp_path / "odd", [odd], plan, 3, 4).missing() == [0]


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[]", b'[{"path": "a"}]', b"[1]"])
def test_a_damaged_part_is_named(tmp_path: Path, content: bytes) -> None:
    found = Collection(tmp_path, ["a"], b"plan", 3, 4)
    (tmp_path / "part-000000.json").write_bytes(content)
    with pytest.raises(CollectionError, match=r"part-000000\.json: damaged; without it, its images are"):
        list(found.results())


def test_what_keeps_a_machine_from_its_part_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    worker = classifier(folder)
    row = worker({"part": 0, "paths": json.dumps(["photos/00.png", "gone.png"])})
    assert json.loads(row["unreadable"]) == ["gone.png"]
    workers._check(row)  # not here either: the image's own error
    (folder / "gone.png").write_bytes(b"")
    with pytest.raises(CollectionError, match=r"machine .* cannot read gone\.png, which is here"):
        workers._check(row)
    (folder / "gone.png").unlink()

    elsewhere = Classifier(None, 3, "auto", 1, "/no/such/folder")
    elsewhere.engine = worker.engine
    row = elsewhere({"part": 0, "paths": json.dumps(["photos/00.png"])})
    with pytest.raises(CollectionError, match="give absolute ones"):
        workers._check(row)
    row = elsewhere({"part": 0, "paths": json.dumps([str(folder / "photos/00.png")])})
    workers._check(row)

    assert worker.engine is not None
    worker.engine.close()
    row = worker({"part": 0, "paths": json.dumps(["photos/00.png"])})
    with pytest.raises(CollectionError, match=r"machine .*: the engine is closed"):
        workers._check(row)


def run(capsys: Captured, *arguments: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(["classify", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_rays_processes_say_what_one_machine_says(
    cluster: Any, folder: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after its first part, then run again, while a node is lost: the part that was there stays, the others
    come from the node that is left."""
    monkeypatch.chdir(folder)
    expected = run(capsys, "--json", "--top-k", 3, "small.plan", "photos")
    assert expected[0] == 2 and "05.png: neither JPEG nor PNG" in expected[2]  # of the damaged image
    with_ray = ("--ray", tmp_path / "results", "--part-size", PART_SIZE, "--json", "--top-k", 3)

    class Killed(BaseException):
        pass

    write = Collection.write

    def write_and_die(self: Collection, number: int, results: Any) -> None:
        write(self, number, results)
        raise Killed

    monkeypatch.setattr(Collection, "write", write_and_die)
    with pytest.raises(Killed):
        run(capsys, *with_ray, "small.plan", "photos")
    (done,) = (tmp_path / "results").glob("part-*.json")
    stamp = done.stat().st_mtime_ns
    written: list[int] = []

    def noted(self: Collection, number: int, results: Any) -> None:
        if not written:
            cluster.lose()
        written.append(number)
        write(self, number, results)

    monkeypatch.setattr(Collection, "write", noted)
    status, out, err = run(capsys, *with_ray, "small.plan", "photos")
    # The cluster is the test's and stays connected, so Ray may tell of the lost node when the command has ended.
    out = "".join(line for line in out.splitlines(keepends=True) if "(raylet)" not in line)
    assert (status, out) == expected[:2]
    assert expected[2] in err and "images have results in" in err
    assert done.stat().st_mtime_ns == stamp
    assert len(written) == 2 and f"part-{written[0]:06}.json" != done.name
    status, out, _ = run(capsys, *with_ray, "small.plan", "photos")
    assert (status, out, len(written)) == (*expected[:2], 2)


@pytest.mark.parametrize("plan", [("digits",), ()], ids=["digits", "no plan"])
def test_rays_processes_take_the_plans_that_need_no_file(
    plan: tuple[str, ...],
    cluster: Any,
    folder: Path,
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = ie.googlenet(width=0.1, input_size=32, classes=10)
    monkeypatch.setattr(ie, "googlenet", lambda: small)
    monkeypatch.chdir(folder)
    expected = run(capsys, *plan, "photos", "--json")
    assert json.loads(expected[1])["random_weights"] is (plan == ())
    status, out, err = run(capsys, "--ray", tmp_path / "results", *plan, "photos", "--json")
    assert (status, out) == expected[:2]
    note = "inception: note: no plan given"
    assert err.count(note) == expected[2].count(note) == (plan == ())


def test_mistakes_on_the_cluster_are_one_line(
    cluster: Any, folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    import ray

    plan, photos = folder / "small.plan", folder / "photos"
    arguments = ("--ray", tmp_path / "results", "--device", "cuda", plan, photos)
    status, out, err = run(capsys, *arguments)
    assert (status, out, err) == (2, "", "inception: error: no machine of Ray's cluster has 1 GPU\n")
    with pytest.raises(CollectionError, match=r"machine .*: .*plan"):
        workers.classify(collection(folder, tmp_path / "other"), b"no plan")
    assert ray.is_initialized()  # who started it ends it


def test_mistakes_are_one_line(
    folder: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, photos = folder / "small.plan", folder / "photos"
    for arguments, word in (
        (("--part-size", 4), "--part-size is of --ray FOLDER"),
        (("--ray", tmp_path / "a", "--part-size", 0), "parts of 0 images"),
        (("--ray", tmp_path / "a", "--top-k", 0), "top_k is 0"),
        (("--ray", tmp_path / "a", "--threads", -1), "--threads -1"),
        (("--ray", tmp_path / "a", "--device", "cuda:1"), "give --device cuda"),
        (("--ray", photos), "holds other files than results"),
        (("--ray", tmp_path / "no" / "folder"), "No such file or directory"),
    ):
        if "--part-size is" not in word:
            pytest.importorskip("ray", reason="backend ray: ray is not installed")
        status, out, err = run(capsys, *arguments, plan, photos)
        assert (status, out) == (2, "")
        assert err.startswith("inception: error: ") and word in err and err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = run(capsys, "--ray", tmp_path / "a", plan, photos)
    assert (status, err) == (
        2, "inception: error: ray is not installed: pip install 'inception-engine[ray]'\n"
    )  # fmt: skip
    assert not (tmp_path / "a").exists()
