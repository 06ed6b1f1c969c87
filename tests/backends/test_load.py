"""`ie.load`: every backend has the same face and computes the same; what does not fit is refused by name."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_engine import ImportFailed, Network, compile, googlenet, load, reference
from inception_engine.backends import BACKENDS
from inception_engine.backends.base import Backend
from inception_engine.errors import (
    BackendError,
    BatchError,
    ClosedError,
    EngineError,
    InputShapeError,
    InputTypeError,
    OutputNameError,
    PackageError,
)
from inception_engine.network import LRN, Conv
from inception_engine.parity import BOUNDS
from inception_engine.preprocess import normalise
from tests.texts import NO_SPECS
from tests.tolerances import TOLERANCES, error, violations

NAMES = ["engine", "onnxruntime", "torch", "reference"]


@pytest.fixture(scope="module")
def network() -> Network:
    return googlenet(seed=3, width=0.2, input_size=48, classes=7)


@pytest.fixture(scope="module")
def images(network: Network) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, *network.input_shape), dtype=np.float32)


@pytest.fixture(scope="module")
def expected(network: Network, images: np.ndarray) -> dict[str, np.ndarray]:
    pytest.importorskip("torch", reason="backend torch: torch is not installed")
    return reference.run(network, images, keep="all")


@pytest.fixture(scope="module")
def files(network: Network, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    names = ("net.safetensors", "net.plan", "net.onnx", "half.onnx", "text.txt")
    paths = {name: folder / name for name in names}
    network.save(paths["net.safetensors"])
    compile(network, max_batch=4).save(paths["net.plan"])
    paths["text.txt"].write_text("neither")
    pytest.importorskip("onnx", reason="backend onnxruntime: onnx is not installed")
    from inception_engine.exporters.onnx import to_onnx

    to_onnx(network, paths["net.onnx"])
    to_onnx(network, paths["half.onnx"], dtype="fp16")
    return paths


@pytest.fixture(params=NAMES)
def opened(request: pytest.FixtureRequest, network: Network) -> Iterator[Backend]:
    packages = {"onnxruntime": ("onnx", "onnxruntime"), "torch": ("torch",), "reference": ("torch",)}
    for package in packages.get(request.param, ()):
        pytest.importorskip(package, reason=f"backend {request.param}: {package} is not installed")
    with load(network, request.param, keep_all=True) as backend:
        yield backend


def test_every_layer_and_the_logits(
    opened: Backend, network: Network, images: np.ndarray, expected: dict[str, np.ndarray]
) -> None:
    layers = opened.face.layers
    assert set(layers) == set(expected)
    assert list(layers) == [layer.name for layer in network.layers]
    results = opened.run(images, ["logits", *layers])
    assert list(results) == ["logits", *layers]
    wanted = {name: expected[name].reshape(results[name].shape) for name in layers}
    assert violations(results, wanted, "fc") == []
    assert error(results["logits"], expected["fc"]) <= TOLERANCES["fp32"].logits


def test_the_face(opened: Backend, network: Network, images: np.ndarray) -> None:
    assert opened.name in NAMES and opened.name in BACKENDS
    assert network.name in opened.description and "\n" not in opened.description
    assert opened.input_shape == network.input_shape
    assert next(iter(opened.outputs.items())) == ("logits", (7, 1, 1))
    assert opened.face.preprocess == network.preprocess
    assert opened.face.random_weights
    logits = opened.run(images)
    assert logits.shape == (3, 7) and logits.dtype == (
        np.float64 if opened.name == "reference" else np.float32
    )
    assert np.array_equal(opened.run(images, ["logits"])["logits"], logits)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    same = opened.run(normalise(pixels, network.preprocess))
    assert error(opened.run(pixels), same) <= TOLERANCES["fp32"].logits


def test_wrong_images_and_names_are_refused(opened: Backend, images: np.ndarray) -> None:
    for wrong, kind in (
        (images[:, :, :-1], InputShapeError),
        (images[0], InputShapeError),
        (images[:0], BatchError),
        (images.astype(np.float64), InputTypeError),
        (images.tolist(), InputTypeError),
    ):
        with pytest.raises(kind):
            opened.run(wrong)
    with pytest.raises(OutputNameError, match="6a"):
        opened.run(images, ["6a"])
    with pytest.raises(OutputNameError, match="list"):
        opened.run(images, "logits")
    opened.close()
    opened.close()
    with pytest.raises(ClosedError):
        opened.run(images)


def test_without_keep_all_there_are_the_logits(network: Network) -> None:
    with load(network, "onnxruntime") as backend:
        assert list(backend.outputs) == ["logits"] and backend.face.layers == ()
    with load(network) as backend:  # the default for a network
        assert backend.name == "engine"
        assert list(backend.outputs) == ["logits", "probabilities"] and backend.face.layers == ()


@pytest.mark.parametrize(
    ("name", "backend"), [("net.safetensors", "engine"), ("net.plan", "engine"), ("net.onnx", "onnxruntime")]
)
def test_a_file_opens_on_the_backend_that_takes_it_as_it_is(
    files: dict[str, Path],
    name: str,
    backend: str,
    images: np.ndarray,
    expected: dict[str, np.ndarray],
) -> None:
    with load(files[name]) as opened:
        assert opened.name == backend
        assert error(opened.run(images), expected["fc"]) <= TOLERANCES["fp32"].logits
    with load(str(files[name]), backend) as opened:
        assert opened.name == backend


def test_layers_of_an_onnx_file(
    files: dict[str, Path], images: np.ndarray, expected: dict[str, np.ndarray]
) -> None:
    for name, dtype in (("net.onnx", "fp32"), ("half.onnx", "fp16")):
        with load(files[name], keep_all=True) as backend:
            assert backend.face.dtype == dtype
            shared = [layer for layer in backend.face.layers if layer in expected]
            assert len(shared) > 80
            results = backend.run(images, shared)
        wanted = {layer: expected[layer].reshape(results[layer].shape) for layer in shared}
        assert violations(results, wanted, "fc", dtype) == []


def test_our_onnx_files_say_how_images_are_normalised(files: dict[str, Path], network: Network) -> None:
    with load(files["net.onnx"]) as backend:
        assert backend.face.preprocess == network.preprocess
        assert backend.face.labels == network.labels


def test_the_engine_emulates_a_gpus_program(
    network: Network, images: np.ndarray, expected: dict[str, np.ndarray]
) -> None:
    errors = {}
    for dtype in ("fp32", "fp16"):
        with load(network, "engine", emulate=True, dtype=dtype) as backend:
            assert "walking a GPU's program" in backend.description and dtype in backend.description
            assert backend.face.dtype == dtype
            errors[dtype] = error(backend.run(images), expected["fc"])
            assert errors[dtype] <= TOLERANCES[dtype].logits
    assert errors["fp16"] > 10 * errors["fp32"]  # it was float16


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("net.plan", "onnxruntime"),
        ("net.plan", "torch"),
        ("net.plan", "reference"),
        ("net.plan", "tensorrt"),
    ],
)
def test_what_a_backend_cannot_take_is_refused_by_name(
    files: dict[str, Path], name: str, backend: str
) -> None:
    with pytest.raises(BackendError, match=f"backend {backend} takes .*, not .*{name}"):
        load(files[name], backend)


@pytest.mark.parametrize(
    ("name", "backend", "options", "word"),
    [
        ("net.safetensors", "caffe", {}, "caffe"),
        ("net.safetensors", "onnxruntime", {"channels_last": True}, "channels_last.*providers"),
        ("net.safetensors", "reference", {"threads": 1}, "none"),
        ("net.safetensors", "torch", {"dtype": "int8"}, "int8"),
        ("net.safetensors", "torch", {"device": "cuda:99"}, "torch: "),
        ("net.safetensors", "torch", {"device": "nonsense"}, "torch: "),
        ("net.safetensors", "onnxruntime", {"providers": "cpu"}, "list"),
        ("net.safetensors", "onnxruntime", {"providers": []}, "list"),
        ("net.plan", "engine", {"max_batch": 2}, "max_batch"),
        ("net.plan", "engine", {"keep_all": True}, "keep_all"),
        ("net.onnx", "onnxruntime", {"dtype": "fp16"}, "precision"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(
    files: dict[str, Path], name: str, backend: str | None, options: dict[str, Any], word: str
) -> None:
    with pytest.raises(BackendError, match=word) as refused:
        load(files[name], backend, **options)
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        load(tmp_path / "nowhere.onnx")
    with pytest.raises(BackendError, match="not a file"):
        load(tmp_path)
    for name, kind in (("a.safetensors", ImportFailed), ("a.onnx", BackendError), ("a.engine", BackendError)):
        (tmp_path / name).write_bytes(b"\x12\x03abc, no such format")
        with pytest.raises(kind, match=name):
            load(tmp_path / name).close()
    (tmp_path / "a.plan").write_bytes(b"INCPLAN\n, and then nothing")
    with pytest.raises(EngineError, match=r"a\.plan"):
        load(tmp_path / "a.plan")
    (tmp_path / "text.txt").write_text("neither")
    with pytest.raises(ImportFailed, match=r"text\.txt: neither"):
        load(tmp_path / "text.txt")
    with pytest.raises(BackendError, match="int"):
        load(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "ROCMExecutionProvider"])
def test_a_provider_that_is_not_there_is_refused(network: Network, provider: str) -> None:
    ort = pytest.importorskip("onnxruntime", reason="backend onnxruntime: onnxruntime is not installed")
    from inception_engine.backends.onnx_providers import PROVIDERS

    full = PROVIDERS.get(provider, (provider,))[0]
    if full in ort.get_available_providers():
        pytest.skip(f"{full} is available")
    with pytest.raises(BackendError, match=full) as refused:
        load(network, "onnxruntime", providers=[provider, "cpu"])
    assert "\n" not in str(refused.value)


def test_a_provider_that_falls_back_is_refused(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime lists providers whose libraries then cannot be loaded, and goes on without them."""
    ort = pytest.importorskip("onnxruntime", reason="backend onnxruntime: onnxruntime is not installed")
    real = ort.InferenceSession

    def session(content: bytes, options: Any, providers: Any, **others: Any) -> Any:
        entry = "session.disable_cpu_ep_fallback"
        assert options.get_session_config_entry(entry) == "1"
        return real(content, providers=["CPUExecutionProvider"])

    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: listed)
    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(BackendError, match="could not start its CUDAExecutionProvider"):
        load(network, "onnxruntime", providers=["cuda"])


def test_a_batch_that_is_fixed(network: Network, images: np.ndarray, files: dict[str, Path]) -> None:
    with load(network, "onnxruntime", batch=3) as backend:
        assert backend.face.batches == (3, 3)
        backend.run(images)
        with pytest.raises(BatchError, match="3 to 3"):
            backend.run(images[:2])
    with load(network, "engine", max_batch=2) as backend, pytest.raises(BatchError):
        backend.run(images)


@pytest.mark.parametrize("backend", ["engine", "torch", "reference"])
def test_backends_of_networks_import_onnx_files(
    files: dict[str, Path], images: np.ndarray, expected: dict[str, np.ndarray], backend: str
) -> None:
    with load(files["net.onnx"], backend, keep_all=True) as opened:
        assert error(opened.run(images), expected["fc"]) <= TOLERANCES["fp32"].logits
        assert "3a/1x1" in opened.face.layers


def test_channels_last_and_half_precision(
    network: Network, images: np.ndarray, expected: dict[str, np.ndarray]
) -> None:
    with load(network, "torch", channels_last=True) as backend:
        assert error(backend.run(images), expected["fc"]) <= TOLERANCES["fp32"].logits
    with load(network, "onnxruntime", dtype="fp16") as backend:
        assert backend.face.dtype == "fp16"
        found = error(backend.run(images), expected["fc"])
        assert TOLERANCES["fp32"].logits < found <= TOLERANCES["fp16"].logits


def test_torch_threads_are_given_back(network: Network) -> None:
    torch = pytest.importorskip("torch", reason="backend torch: torch is not installed")
    before = torch.get_num_threads()
    with load(network, "torch", threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def change_lrn(layer: Any) -> Any:
    return dataclasses.replace(layer, alpha=0.1) if isinstance(layer, LRN) else layer


def drop_relu(layer: Any) -> Any:
    return dataclasses.replace(layer, relu=False) if isinstance(layer, Conv) else layer


@pytest.mark.parametrize("text", NO_SPECS, ids=range(len(NO_SPECS)))
def test_metadata_that_are_no_spec_are_passed_over(network: Network, text: str) -> None:
    pytest.importorskip("torch", reason="backend torch: torch is not installed")
    with load(dataclasses.replace(network, metadata={"spec": text}), "torch") as backend:
        assert "reference operations" in backend.description


@pytest.mark.parametrize("change", [change_lrn, drop_relu, None], ids=["lrn", "relu", "metadata"])
def test_a_network_that_is_not_what_its_metadata_says_is_run_as_it_is(
    network: Network, images: np.ndarray, expected: dict[str, np.ndarray], change: Callable[[Any], Any] | None
) -> None:
    if change is None:
        changed = dataclasses.replace(network, metadata={"spec": "__import__('os').abort()"})
    else:
        changed = dataclasses.replace(network, layers=tuple(map(change, network.layers)))
    with load(network, "torch") as backend:
        assert "model" in backend.description
    with load(changed, "torch", keep_all=True) as backend:
        assert "reference operations" in backend.description
        found = error(backend.run(images), reference.run(changed, images)["fc"])
        assert found <= TOLERANCES["fp32"].logits
        assert (error(backend.run(images), expected["fc"]) > 1e-3) == (change is not None)
        assert "softmax" in backend.run(images, ["softmax", "conv1"])
    with pytest.raises(BackendError, match="fp32"):
        load(changed, "torch", channels_last=True)


@pytest.mark.parametrize(("backend", "package"), [("onnxruntime", "onnxruntime"), ("torch", "torch"),
                                                  ("onnxruntime", "onnx"), ("tensorrt", "tensorrt")])  # fmt: skip
def test_a_missing_package_is_one_line_that_says_how_to_get_it(
    network: Network, monkeypatch: pytest.MonkeyPatch, backend: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PackageError, match=rf"{package} is not installed: pip install 'inception-engine\["):
        load(network, backend)


def test_a_package_that_cannot_be_imported_says_why(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(PackageError, match=r"tensorrt cannot be imported: libnvinfer\.so"):
        load(network, "tensorrt")


def test_a_backend_imports_only_its_own_packages(files: dict[str, Path]) -> None:
    code = "import sys, inception_engine as ie\nwith ie.load(sys.argv[1], 'engine') as b: pass\n"
    code += "assert not {'torch', 'onnx', 'onnxruntime', 'tensorrt', 'polygraphy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, files["net.plan"]], check=True, timeout=60)


def test_bounds_are_those_of_the_tests() -> None:
    assert {dtype: tolerance.logits for dtype, tolerance in TOLERANCES.items()}.items() <= BOUNDS.items()
