"""One Inception module as a network of its own, to be compiled for tensors like ``x``."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from inception_engine.compiler.plan import ALIGNMENT, PANEL, Dtype, OpKind, Plan
from inception_engine.fused import OUTPUTS
from inception_engine.network import INPUT, Concat, Conv, Layer, MaxPool, Network, Preprocess

MODULE = "inception"


def planned(batch: int) -> int:
    """The batch that is compiled for: a power of two, so that one plan serves several. Very large ones are taken as
    they are: rounded up they might be too large for the kernels."""
    return 1 << (batch - 1).bit_length() if batch <= 256 else batch


def network(x: Tensor, convolutions: dict[str, tuple[Tensor, Tensor]]) -> Network:
    """The module alone, on images like ``x``. Its branches are filled up to whole panels, by channels of zeros."""
    sources = {"3x3": "3x3_reduce", "5x5": "5x5_reduce", "pool_proj": "pool"}
    layers: list[Layer] = [
        MaxPool(name="pool", inputs=(INPUT,), module=MODULE, kernel=(3, 3), stride=(1, 1), pads=(1, 1, 1, 1))
    ]
    for name, (weight, bias) in convolutions.items():
        more = padded(len(bias)) - len(bias) if name in OUTPUTS else 0
        layers.append(
            Conv(
                name=name,
                inputs=(sources.get(name, INPUT),),
                module=MODULE,
                weight=np.pad(weight.numpy(), ((0, more), (0, 0), (0, 0), (0, 0))),
                bias=np.pad(bias.numpy(), (0, more)),
                pads=(weight.shape[-1] // 2,) * 4,
            )
        )
    layers.append(Concat(name=MODULE, inputs=OUTPUTS, module=MODULE))
    return Network(
        name=MODULE,
        input_shape=(x.shape[1], x.shape[2], x.shape[3]),
        layers=tuple(layers),
        logits=MODULE,
        preprocess=Preprocess(mean=(0.0,), std=(1.0,)),
    )


def arrange(plan: Plan) -> tuple[int, int]:
    """Place the buffers anew: what only the module sees comes first, its input and its result, which live elsewhere,
    last. Returns the input's index and the bytes of what comes first."""
    (program,) = plan.programs
    (image,) = program.ops[program.ops["kind"] == OpKind.INPUT]
    (output,) = program.outputs
    elsewhere = [int(image["out_buffer"]), int(output["buffer"])]
    inner = [i for i in range(len(program.buffers)) if i not in elsewhere]
    batch, element = int(program.header["max_batch"]), Dtype(int(program.header["dtype"])).bytes
    end = 0
    for i in inner + elsewhere:
        buffer = program.buffers[i]
        buffer["offset"] = end
        size = batch * int(buffer["rows"]) * int(buffer["pitch"]) * element
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return elsewhere[0], int(program.buffers[elsewhere[0]]["offset"])


def padded(channels: int) -> int:
    """Filled up to whole panels."""
    return -(-channels // PANEL) * PANEL
