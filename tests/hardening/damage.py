"""Damaged plans: each is refused, or harmless by an independent proof of what the damage has made of it."""

from __future__ import annotations

import random
from collections import Counter

import inception_engine as ie
from tests import happens_before, proof_rules
from tests.hardening.commands import Failed
from tests.loader import verdict
from tests.plans import FILE_HEADER, PROGRAM, WEIGHTS, mend_hash, read_programs, read_sections, seal


def flip(plan: bytes, bit: int) -> bytes:
    damaged = bytearray(plan)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def section_of(plan: bytes, byte: int) -> int:
    """The kind of the section that holds the byte; 0 between sections."""
    return next((kind for kind, begin, size in read_sections(plan) if begin <= byte < begin + size), 0)


def judge_flip(plan: bytes, bit: int, *, prove: bool = True) -> str:
    """ "refused", "values" (weights and metadata, which the loader does not interpret) or "proven". Raises Failed.

    As it is a flipped bit never passes. Under a mended hash it passes in the weights and the metadata; in the tables
    (a section's length may take in the zeros behind it) only where the programs that it leaves keep every rule, and
    brute force finds no hazard in them (``prove``: slow).
    """
    if verdict(flip(plan, bit)) == "IE_OK":
        raise Failed(f"bit {bit}: accepted under a hash that does not fit")
    mended = mend_hash(flip(plan, bit))
    status, kind = verdict(mended), section_of(plan, bit // 8)
    if bit // 8 < FILE_HEADER.bytes:
        # The hash itself is mended away; all other fields of the header have one value.
        if mended != plan and status == "IE_OK":
            raise Failed(f"bit {bit}: accepted with another header")
        return "refused"
    if kind != PROGRAM and kind != 0:
        if status != "IE_OK":
            raise Failed(f"bit {bit}: {status}, for values that the loader does not interpret")
        return "values"
    if status != "IE_OK":
        return "refused"
    if kind == 0 and bit // 8 >= min(begin for _, begin, _ in read_sections(plan)):
        raise Failed(f"bit {bit}: accepted between sections")
    if prove:
        for program in read_programs(mended):
            if broken := proof_rules.violations(program):
                raise Failed(f"bit {bit}: accepted, and breaks {broken}")
            try:
                happens_before.check(program)
            except happens_before.Hazard as hazard:
                raise Failed(f"bit {bit}: accepted, and {hazard}") from None
    return "proven"


def judge_cuts(plan: bytes) -> int:
    """Cuts a plan at each section's begin and end, as it is and under a mended header; how many cuts. Raises Failed."""
    sections = read_sections(plan)
    ends = {FILE_HEADER.bytes} | {end for _, begin, size in sections for end in (begin, begin + size)} - {
        len(plan)
    }
    for end in sorted(ends):
        cut = plan[:end]
        mended = seal(cut[FILE_HEADER.bytes :], section_count=len(sections))
        if "IE_OK" in (verdict(cut), verdict(mended)):
            raise Failed(f"a plan cut at byte {end} is accepted")
    return len(ends)


def googlenet(flips: int, seed: int) -> str:
    """Cuts and random flips of a whole GoogLeNet's plan, every other one in its tables; one line. Raises Failed."""
    plan = ie.compile(ie.googlenet(), batches=(1, 4)).to_bytes()
    tables = [(begin, size) for kind, begin, size in read_sections(plan) if kind != WEIGHTS]
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    for number in range(flips):
        begin, size = rng.choice(tables) if number % 2 else (0, len(plan))
        found[judge_flip(plan, 8 * begin + rng.randrange(8 * size), prove=False)] += 1
    return f"{judge_cuts(plan)} cuts, {flips} flips: {dict(sorted(found.items()))}"
