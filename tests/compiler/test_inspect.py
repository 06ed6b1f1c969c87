"""What `inspect` reports, against numbers worked out by hand and against the network's own."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from inception_engine import Network, Plan, compile, googlenet
from inception_engine.compiler.inspect import render, report
from inception_engine.compiler.targets import CPU, CUDA
from inception_engine.network import Conv, Linear, MaxPool

CONV_MACS = 6 * 9 * 20 * (3 * 3 * 3)  # 6 x 9 pixels, 20 channels out of 3
CONV_EXECUTED = 6 * 9 * 32 * (3 * 3 * 3)  # 20 channels are two panels of 16
LINEAR_MACS = 7 * (20 * 3 * 4)
LINEAR_EXECUTED = 16 * (20 * 3 * 4)
# float32, for three images, an image's share: what is read and written is each image's, weights and biases are not.
# Rows of the folded stem's input hold their padding, 11 pixels.
CONV_BYTES = (3 * 4 * (6 * 11 * 3 + 6 * 9 * 20) + 4 * 32 * (27 + 1)) // 3
LINEAR_BYTES = (3 * 4 * (240 + 7) + 4 * 16 * (240 + 1)) // 3


@pytest.fixture(scope="module")
def network() -> Network:
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    return Network(
        name="tiny",
        input_shape=(3, 6, 9),
        layers=(
            Conv(
                name="3a/1x1",
                inputs=("input",),
                module="3a",
                weight=zeros(20, 3, 3, 3) + 1,
                bias=zeros(20),
                pads=(1, 1, 1, 1),
            ),
            MaxPool(name="pool", inputs=("3a/1x1",), kernel=(2, 2), stride=(2, 2)),
            Linear(name="fc", inputs=("pool",), weight=zeros(7, 240) + 2, bias=zeros(7) + 3),
        ),
        logits="fc",
    )


def test_multiply_adds_of_the_cpu(network: Network) -> None:
    document = report(compile(network, max_batch=3))
    assert document["macs"] == {
        "nominal": CONV_MACS + LINEAR_MACS,
        "executed": CONV_EXECUTED + LINEAR_EXECUTED,
    }
    assert document["modules"] == [
        {"name": "3a", "nominal": CONV_MACS, "executed": CONV_EXECUTED, "bytes": CONV_BYTES},
        {"name": "fc", "nominal": LINEAR_MACS, "executed": LINEAR_EXECUTED, "bytes": LINEAR_BYTES},
    ]


def test_multiply_adds_of_whole_tiles(network: Network) -> None:
    plan = compile(network, max_batch=3)
    program = plan.programs[0]
    program.header["target"] = 2
    program.ops["tile_rows"], program.ops["tile_columns"] = 64, 64
    # Channels are no whole panels, so that each run of them takes steps of its own.
    conv = 192 * 64 * (3 * 32)  # 3 * 6 * 9 = 162 rows are three tiles, 3 runs of 3 * 3 three steps
    linear = 64 * 64 * (12 * 32)  # 3 * 4 runs of 20 are twelve steps
    assert report(plan)["macs"]["executed"] == pytest.approx((conv + linear) / 3, abs=1)


def test_multiply_adds_of_tiles_that_no_kernel_has(network: Network) -> None:
    plan = compile(network, max_batch=3)
    plan.programs[0].header["target"] = 2
    plan.programs[0].ops["tile_rows"], plan.programs[0].ops["tile_columns"] = 54, 32
    conv, linear = 162 * 32 * (3 * 3 * 3), 54 * 32 * (20 * 3 * 4)
    assert report(plan)["macs"]["executed"] == pytest.approx((conv + linear) / 3, abs=1)


@pytest.mark.parametrize(("batch", "budget"), [(1, 1.35), (32, 1.25)])
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_budget_of_the_gpu(dtype: str, batch: int, budget: float) -> None:
    document = report(compile(googlenet(), targets=("cuda",), dtype=dtype, max_batch=batch))
    macs = document["macs"]
    assert 1 < macs["executed"] / macs["nominal"] <= budget
    inceptions = [module for module in document["modules"] if module["name"][0] in "345"]
    assert len(inceptions) == 9 and all(1 < m["executed"] / m["nominal"] < 2 for m in inceptions)


def test_memory(network: Network) -> None:
    plan = compile(network, max_batch=3)
    document = report(plan)
    floats = CONV_EXECUTED // 54 + 32 + LINEAR_EXECUTED + 16 + 2 * 3  # the last: scale and shift of the input
    assert document["weight_bytes"] == 4 * floats
    assert document["arena_bytes"] == plan.programs[0].header["arena_bytes"]
    # The input is padded in memory; the others are 20 channels of 6 x 9 and of 3 x 4, and 7 of one pixel.
    assert document["activation_bytes"] >= 4 * 3 * (3 * 54 + 20 * 54 + 20 * 12 + 7)


def test_weights_that_two_layers_share_count_once(network: Network) -> None:
    conv, _, fc = network.layers
    assert isinstance(conv, Conv)
    same = Conv(name="twin", inputs=("input",), weight=conv.weight, bias=conv.bias, pads=(1, 1, 1, 1))
    pooled = MaxPool(name="pool", inputs=("twin",), kernel=(2, 2), stride=(2, 2))
    other = Network(name="twins", input_shape=(3, 6, 9), layers=(same, pooled, fc), logits="fc")
    assert report(compile(other))["weight_bytes"] == report(compile(network))["weight_bytes"]


def test_every_program_is_listed_and_the_first_is_repeated(network: Network) -> None:
    plan = compile(network, batches=(1, 4))
    document = json.loads(json.dumps(report(plan)))
    assert [program["max_batch"] for program in document["programs"]] == [1, 4]
    for key, value in document["programs"][0].items():
        assert document[key] == value
    for program, entry in zip(plan.programs, document["programs"], strict=True):
        assert entry["launches"] == [{"name": "tiny", "mode": "network", "tasks": len(program.tasks)}]
        assert entry["tasks"] == len(program.tasks) and entry["waits"] == len(program.waits)
        assert entry["ops"] == len(program.ops)
        assert entry["input"] == [3, 6, 9] and entry["outputs"] == [{"name": "logits", "shape": [7, 1, 1]}]
        assert (entry["target"], entry["dtype"]) == ("cpu", "fp32")
    assert document["name"] == "tiny" and document["random_weights"] is False and document["labels"] == 0


@pytest.mark.parametrize("norm", ["lrn", "none"])
def test_googlenet_wastes_little(norm: str) -> None:
    network = googlenet(norm=norm)
    document = report(compile(network))
    assert document["macs"]["nominal"] == network.macs() == 1_582_671_872
    direct = report(compile(network, targets=(dataclasses.replace(CPU, winograd=()),)))
    assert 1 <= direct["macs"]["executed"] / document["macs"]["nominal"] <= 1.03
    # 36 for 144 or 100 in windows of 3 or 5, 16 for 36 in those of 3 at 14 and 7 pixels, where patches leave the image
    assert document["macs"]["executed"] <= 0.55 * document["macs"]["nominal"]
    assert document["arena_bytes"] <= 0.35 * document["activation_bytes"]
    names = [module["name"] for module in document["modules"]]
    assert [name for name in names if name[0].isdigit()] == [
        "3a",
        "3b",
        "4a",
        "4b",
        "4c",
        "4d",
        "4e",
        "5a",
        "5b",
    ]


def test_the_text_names_everything(network: Network) -> None:
    plan = compile(network, batches=(1, 4))
    text = render(report(Plan.from_bytes(plan.to_bytes())))
    for part in ("tiny: 2 programs", "program 2: cpu fp32, batch 1 to 4", "3 x 6 x 9", "logits 7 x 1 x 1"):
        assert part in text
    assert f"tiny (network): {len(plan.programs[1].tasks)} tasks" in text
    assert f"+{CONV_EXECUTED / CONV_MACS - 1:.1%}" in text
    assert "random" not in text
    assert "weights are random" in render(report(compile(googlenet(width=0.1, input_size=32))))


def test_multiply_adds_of_parts(network: Network) -> None:
    """Each part runs whole steps of K: 640 elements (240 in padded channels) in parts of 416 and 224."""
    target = dataclasses.replace(CUDA, part_tasks=2, least_depth=64)
    linear = report(compile(network, targets=(target,), dtype="fp16"))["modules"][-1]
    whole = report(compile(network, targets=(CUDA,), dtype="fp16"))["modules"][-1]
    assert linear == whole and whole["executed"] == 32 * 32 * 384


def test_bytes_follow_the_dtype_and_layers_add_up(network: Network) -> None:
    program = report(compile(network, targets="cuda", dtype="fp16", max_batch=3))["programs"][0]
    layers = {layer["name"]: layer for layer in program["layers"]}
    assert set(layers) >= {"input", "3a/1x1", "pool", "fc"}
    # The input is float32 of the caller's; activations are float16, of 20 channels.
    assert layers["pool"]["bytes"] == 2 * (6 * 9 * 20 + 3 * 4 * 20)
    assert sum(layer["nominal"] for layer in program["layers"]) == program["macs"]["nominal"]
    assert layers["pool"]["nominal"] == layers["pool"]["executed"] == 0


def test_layers_as_text(network: Network) -> None:
    document = report(compile(network))
    modules, layers = render(document).splitlines(), render(document, layers=True).splitlines()
    assert any(line.split()[0] == "pool" for line in layers if line) and not any(
        line.split()[0] == "pool" for line in modules if line
    )
    (pool,) = (line.split() for line in layers if line.startswith("  pool "))
    assert pool == ["pool", "0.00", "0.00", "-", f"{4 * (6 * 9 * 20 + 3 * 4 * 20) / 1e3:.1f}", "0.0"]


def test_a_network_without_a_convolution() -> None:
    pool = MaxPool(name="pool", inputs=("input",), kernel=(2, 2), stride=(2, 2))
    network = Network(name="pools", input_shape=(3, 6, 9), layers=(pool,), logits="pool")
    document = report(compile(network))
    assert document["macs"] == {"nominal": 0, "executed": 0}
    assert "program 1: cpu fp32" in render(document) and "pool" in render(document, layers=True)
