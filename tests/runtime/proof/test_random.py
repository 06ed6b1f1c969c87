"""The loader's verdict, the rules and brute force agree on random, mutated, compiled and damaged programs."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np

from inception_engine.compiler import compile
from tests import happens_before, plans, proof_rules
from tests.happens_before import is_safe
from tests.loader import verdict
from tests.plans import Program, plan_file, small_program
from tests.random_networks import random_network
from tests.random_plans import mutated, random_program


def judge(program: Program) -> str:
    """The loader's verdict, after comparing it with the rules and with brute force."""
    status = verdict(plan_file(program))
    broken_rules = proof_rules.violations(program)
    assert status in (broken_rules or {"IE_OK"}), broken_rules
    if status == "IE_OK":
        happens_before.check(program)
    return status


def test_random_and_mutated_programs() -> None:
    """Five thousand random programs, most of them mutated once to three times."""
    rng = random.Random(2014)
    found: Counter[str] = Counter()
    refused_though_safe: Counter[str] = Counter()
    cut = 0  # accepted programs with an op whose K is cut
    for _ in range(5000):
        program = random_program(rng)
        if rng.random() < 0.7:
            program = mutated(program, rng)
        status = judge(program)
        found[status] += 1
        cut += status == "IE_OK" and any(op.part_depth for op in program.ops)
        if status in ("IE_PLAN_MISSING_WAIT", "IE_PLAN_REUSE") and is_safe(program):
            refused_though_safe[status] += 1
    assert cut > 100
    print(f"verdicts: {dict(found.most_common())}; refused though safe: {dict(refused_though_safe)}")
    # Both sides of the border are well populated, and the rules lose few safe programs.
    assert 0.2 < found["IE_OK"] / 5000 < 0.6
    assert min(found["IE_PLAN_MISSING_WAIT"], found["IE_PLAN_REUSE"]) > 200
    assert sum(refused_though_safe.values()) < 0.2 * (found["IE_PLAN_MISSING_WAIT"] + found["IE_PLAN_REUSE"])


def test_programs_at_the_border() -> None:
    """Five thousand steps of an adversary who keeps every mutation that the loader lets pass."""
    rng = random.Random(1409)
    accepted = 0
    for _ in range(250):
        program = random_program(rng)
        for _ in range(20):
            candidate = mutated(program, rng)
            if judge(candidate) == "IE_OK":
                program, accepted = candidate, accepted + 1
    print(f"accepted: {accepted} of 5000")
    assert accepted > 1000


def test_programs_with_no_wait_to_spare() -> None:
    """Waits are dropped until the loader wants every one that is left; brute force wants no other."""
    rng = random.Random(5)
    dropped = 0
    for _ in range(60):
        program = random_program(rng)
        if verdict(plan_file(program)) != "IE_OK":
            continue
        places = [(t, w) for t, waits in enumerate(program.wait_lists()) for w in range(len(waits))]
        rng.shuffle(places)
        gone: set[tuple[int, int]] = set()
        lists = program.wait_lists()
        for place in places:
            lean = program.copy()
            lean.set_wait_lists(
                [
                    [w for i, w in enumerate(waits) if (t, i) not in gone | {place}]
                    for t, waits in enumerate(lists)
                ]
            )
            if verdict(plan_file(lean.count())) == "IE_OK":
                gone.add(place)
                leanest = lean
        if gone:
            happens_before.check(leanest)
            dropped += len(gone)
    assert dropped > 100


def test_compiled_programs() -> None:
    """What the compiler makes of random networks: the loader accepts it, and it is safe."""
    generator = np.random.default_rng(0)
    for _ in range(25):
        network = random_network(generator)
        data = compile(network, batches=(1, 3)).to_bytes()
        assert verdict(data) == "IE_OK"
        for program in plans.read_programs(data):
            assert not proof_rules.violations(program)
            happens_before.check(program)


def test_damaged_programs_with_a_mended_hash() -> None:
    """Each byte of a program in turn: what the loader lets pass is as safe as before."""
    data = plan_file(small_program(1))
    ((_, begin, size),) = [section for section in plans.read_sections(data) if section[0] == plans.PROGRAM]
    rng = random.Random(3)
    accepted = 0
    for position in range(begin, begin + size):
        for flip in (1 << rng.randrange(8), rng.randint(1, 255)):
            damaged = bytearray(data)
            damaged[position] ^= flip
            mended = plans.mend_hash(bytes(damaged))
            if verdict(mended) == "IE_OK":
                (program,) = plans.read_programs(mended)
                assert not proof_rules.violations(program), position
                happens_before.check(program)
                accepted += 1
    assert accepted > 0
