"""A checkpoint file as tensors by name: safetensors, which needs no torch, or PyTorch's own files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inception_engine.importers import pickled
from inception_engine.importers.errors import ImportFailed

if TYPE_CHECKING:
    import torch

# Where training programs put the state dict, in the order in which it is looked for.
ENTRIES = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
DEPTH = 3  # of such entries in each other
COMPILED = "_orig_mod."  # torch.compile's, wherever the compiled module stands
OURS = "trunk"  # of inception_engine.model; a name that all tensors of a bare trunk share, and no wrapper's


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """``tensors``: of any floating or integer dtype that NumPy has; bfloat16 became float32.

    ``entry``: where in the file the state dict was, as "model.state_dict", or "". ``prefix``: what all names began
    with, as "module.", taken off.
    """

    path: str
    tensors: Mapping[str, np.ndarray]
    entry: str = ""
    prefix: str = ""


def read_safetensors(path: str | os.PathLike[str]) -> Checkpoint:
    """Raises ImportFailed for files that are damaged, and OSError."""
    from safetensors import SafetensorError, deserialize, safe_open

    if (size := Path(path).stat().st_size) > pickled.MAX_FILE_BYTES:
        raise ImportFailed(f"{path}: {size:,} bytes, more than {pickled.MAX_FILE_BYTES:,}")
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            kinds = {name: file.get_slice(name).get_dtype() for name in names}
            plain = {name: file.get_tensor(name) for name in names if kinds[name] in _NUMPY_KINDS}
        if "BF16" in kinds.values():
            plain |= {
                name: _from_bfloat16(np.frombuffer(tensor["data"], np.uint16)).reshape(tensor["shape"])
                for name, tensor in deserialize(Path(path).read_bytes())
                if kinds[name] == "BF16"
            }
    except SafetensorError as error:
        raise ImportFailed(f"{path}: truncated or damaged: {error}") from None
    if foreign := [name for name in names if name not in plain]:
        raise ImportFailed(f"{path}: {foreign[0]} is of type {kinds[foreign[0]]}, not a floating-point type")
    tensors, prefix = _without_prefix(plain)
    return Checkpoint(path=os.fspath(path), tensors=tensors, prefix=prefix)


_NUMPY_KINDS = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


def _from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def read_pickled(path: str | os.PathLike[str]) -> Checkpoint:
    """A state dict, alone or in an entry of a dictionary. Raises ImportFailed and OSError."""
    content = pickled.load(path)
    entry, state = _state_dict(path, content)
    found = {str(name): value for name, value in state.items() if _is_tensor(value)}
    # A view of one element may claim to be a terabyte. In a file of weights every tensor has bytes of its own.
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
    if claimed > Path(path).stat().st_size:
        raise ImportFailed(f"{path}: its tensors claim {claimed:,} bytes, more than the file has")
    tensors, prefix = _without_prefix({name: _array(path, name, tensor) for name, tensor in found.items()})
    return Checkpoint(path=os.fspath(path), tensors=tensors, entry=entry, prefix=prefix)


def _state_dict(path: str | os.PathLike[str], content: Any) -> tuple[str, Mapping[Any, Any]]:
    """The first dictionary with tensors in it: the content itself, or behind ENTRIES."""
    names: list[str] = []
    for _ in range(DEPTH + 1):
        if not isinstance(content, Mapping):
            what = f"a {type(content).__name__}"
            break
        if any(_is_tensor(value) for value in content.values()):
            return ".".join(names), content
        name = next((name for name in ENTRIES if isinstance(content.get(name), Mapping)), None)
        if name is None:
            listed = ", ".join(map(str, list(content)[:5]))
            what = f"a dictionary with {listed}" if content else "an empty dictionary"
            break
        names.append(name)
        content = content[name]
    else:
        what = "dictionaries in dictionaries"
    raise ImportFailed(
        f"{path}: holds {what}, no state dict alone or under {', '.join(ENTRIES)}; save one: "
        "torch.save(model.state_dict(), 'weights.pth')"
    )


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _array(path: str | os.PathLike[str], name: str, tensor: torch.Tensor) -> np.ndarray:
    import torch

    try:
        if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
            tensor = tensor.float()
        array: np.ndarray = tensor.detach().resolve_neg().contiguous().numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantised, complex, of a device that holds nothing
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ImportFailed(f"{path}: {name} is {kind}, not an ordinary tensor: {error}") from None
    return array


def _without_prefix(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """What a wrapper (DataParallel, Lightning, a module of one's own) put before every name goes, and COMPILED."""
    named = {name.replace(COMPILED, ""): tensor for name, tensor in tensors.items()}
    prefix = ""
    while len(named) > 1 and len(first := {name.partition(".")[0] for name in named}) == 1:
        (shared,) = first
        if shared == OURS or any("." not in name for name in named):
            break
        prefix += f"{shared}."
        named = {name.partition(".")[2]: tensor for name, tensor in named.items()}
    return named, prefix
