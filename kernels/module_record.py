"""``module`` in the kernel archive: compiled for given sizes, with all that its launch and its descriptors need.

How Triton 3.6.0 passes a descriptor that the host made: a CUtensorMap by value, then for each dimension, the outermost
first, its size (32 bits) and its stride (elements, 64 bits). A kernel that has another list ends the build.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import triton
from inception_engine.kernels.machine_code import compile_module, resources, unsettled
from inception_engine.kernels.sizes import Sizes
from inception_engine.kernels.tuning import specialise_from
from triton.compiler import CompiledKernel

RECORD = struct.Struct("<22IQ64s32sQQ288s16x")  # ModuleRecord of runtime/cuda/archive.h
MAP = struct.Struct("<8I")
NEVER = (1 << 64) - 1  # pixels
CUBIN = 1
DTYPES = {"fp16": 2, "bf16": 3}  # as in plan_format.h
MAP_TYPES = {"fp16": 6, "bf16": 9}  # CUtensorMapDataType
_DEVICE_TYPES = {"fp16": 6, "bf16": 10}  # the same in the compiler's metadata, which counts as the GPU does
_POINTERS = ("x", "r", "p", "out", "bias", "state", "p_ticket")
_BYTES = {"u64": 8, "u32": 4, "b8[128]": 128}


@dataclass(frozen=True, kw_only=True)
class TensorMap:
    """What cuTensorMapEncodeTiled is told of a descriptor beside the tensor. ``box``: the innermost side first."""

    type: int
    swizzle: int
    box: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ModuleKernel:
    """A ModuleRecord with its code. ``params``: bytes of each parameter. ``from_pixels``: see tuning.py, or NEVER."""

    arch: int
    dtype: int
    sizes: Sizes
    threads: int
    shared: int
    registers: int
    from_pixels: int
    params: tuple[int, ...]
    maps: tuple[TensorMap, ...]
    name: str
    code: bytes

    @property
    def key(self) -> tuple[int, ...]:
        """Height, width, channels, widths, reduced, third, group."""
        s = self.sizes
        return s.height, s.width, s.channels, *s.widths, s.reduced, s.third, s.group

    def record(self, offset: int) -> bytes:
        """``offset``: of the code in the file."""
        maps = b"".join(
            MAP.pack(len(m.box), m.type, m.swizzle, *(m.box + (0,) * (5 - len(m.box)))) for m in self.maps
        )
        numbers = CUBIN, self.arch, self.dtype, *self.key, *self.sizes.phases
        counts = self.threads, self.shared, self.registers, len(self.params), 0
        params, name = bytes(self.params), self.name.encode()
        return RECORD.pack(*numbers, *counts, self.from_pixels, params, name, offset, len(self.code), maps)


def unpacked(content: bytes, begin: int) -> ModuleKernel:
    """Of a file's content, the record at ``begin``."""
    *numbers, from_pixels, params, name, offset, length, maps = RECORD.unpack_from(content, begin)
    _, arch, dtype, height, width, channels, *rest = numbers
    reduced, third, group, _, _, threads, shared, registers, count, _ = rest[6:]
    return ModuleKernel(
        arch=arch,
        dtype=dtype,
        sizes=Sizes(
            height=height, width=width, channels=channels, widths=tuple(rest[:6]), reduced=reduced, third=third,
            group=group,
        ),
        threads=threads,
        shared=shared,
        registers=registers,
        from_pixels=from_pixels,
        params=tuple(params[:count]),
        maps=tuple(
            TensorMap(type=kind, swizzle=swizzle, box=tuple(box[:rank]))
            for rank, kind, swizzle, *box in MAP.iter_unpack(maps)
        ),
        name=name.rstrip(b"\0").decode(),
        code=content[offset : offset + length],
    )  # fmt: skip


def parameters(sizes: Sizes) -> tuple[str, ...]:
    """PTX types of what a launch passes; the last two are scratch memory, which ``module`` does not use."""
    maps = [("b8[128]", *("u32",) * len(box), *("u64",) * len(box)) for box in sizes.blocks.values()]
    return (*(kind for each in maps for kind in each), *("u64",) * len(_POINTERS), "u32", "u64", "u64")


def build(dtype: str, sizes: Sizes, arch: int) -> ModuleKernel:
    """Compile it. Raises ValueError for a kernel that the runtime cannot launch, and the compiler's exceptions."""
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True  # as of ``walk``
        compiled = compile_module(dtype, sizes, arch)
    registers, stack, found = resources(compiled)
    if fault := _fault(compiled, stack, found, dtype, sizes):
        raise ValueError(fault)
    pixels = specialise_from(arch)
    return ModuleKernel(
        arch=arch,
        dtype=DTYPES[dtype],
        sizes=sizes,
        threads=32 * compiled.metadata.num_warps,
        shared=compiled.metadata.shared,
        registers=registers,
        from_pixels=NEVER if pixels == float("inf") else int(pixels),
        params=tuple(_BYTES[kind] for kind in found),
        maps=tuple(
            TensorMap(type=MAP_TYPES[dtype], swizzle=meta["swizzle"], box=tuple(reversed(meta["block_size"])))
            for meta in compiled.metadata.tensordesc_meta
        ),
        name=compiled.metadata.name,
        code=compiled.asm["cubin"],
    )


def _fault(compiled: CompiledKernel, stack: int, found: tuple[str, ...], dtype: str, sizes: Sizes) -> str:
    """What the runtime cannot launch, or nobody wants; or nothing."""
    metadata, ptx, expected = compiled.metadata, compiled.asm["ptx"], parameters(sizes)
    threads = re.search(r"\.reqntid (\d+)", ptx)
    if f".entry {metadata.name}(" not in ptx:
        return "no such entry"
    if found != expected:
        return f"parameters {' '.join(found)}, not {' '.join(expected)}"
    if threads is None or int(threads[1]) != 32 * metadata.num_warps or metadata.num_ctas != 1:
        return f"a block is not {metadata.num_warps} warps"
    if metadata.global_scratch_size or metadata.profile_scratch_size:
        return "it wants scratch memory, which the runtime does not give"
    if unsettled(ptx):
        return "its products may read registers that hold other numbers by then"
    maps = metadata.tensordesc_meta
    if [meta["block_size"] for meta in maps] != list(sizes.blocks.values()):
        return "its descriptors have other boxes"
    described = {(meta["elem_type"], meta["elem_size"], meta["fp4_padded"]) for meta in maps}
    if described != {(_DEVICE_TYPES[dtype], 2, False)}:
        return "its descriptors have another element type"
    # Where a box is as wide as the swizzled run, and no wider, one box is one copy.
    if any(meta["block_size"][-1] * 2 != 16 << meta["swizzle"] for meta in maps):
        return "its descriptors are swizzled in another way"
    return f"{stack} bytes of stack: it spills registers" if stack else ""
