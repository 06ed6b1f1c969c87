"""How the C library reads a plan's description: all that Python's json writes, and nothing that is no JSON."""

from __future__ import annotations

import json
from ctypes import byref, c_void_p
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_engine import binding
from tests.loader import STATUS
from tests.plans import plan_file, small_program

PROGRAM = small_program(1)
CHANNELS = PROGRAM.header.input_channels
CLASSES = PROGRAM.outputs[0].channels


def load(metadata: bytes) -> tuple[str, str, str, list[str]]:
    """Status, message, and then the name and labels that the library gives."""
    library = binding.library()
    message = binding.message_buffer()
    data = plan_file(PROGRAM, metadata=metadata)
    engine = c_void_p()
    status = library.ie_engine_load_memory(data, len(data), None, byref(engine), message)
    assert (status == 0) == bool(engine)
    info = binding.EngineInfo()
    labels = []
    if engine:
        assert library.ie_engine_describe(engine, info) == 0
        labels = [library.ie_engine_label(engine, index).decode() for index in range(info.labels)]
    name = info.name.decode() if engine else ""
    library.ie_engine_free(engine)
    text = message.value.decode()
    assert "\n" not in text
    return STATUS[status], text, name, labels


def accepts(metadata: bytes) -> bool:
    status, message, _, _ = load(metadata)
    assert status in ("IE_OK", "IE_PLAN_METADATA"), message
    return status == "IE_OK"


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@settings(max_examples=60, deadline=None)
@given(
    TEXT, st.lists(TEXT, min_size=CLASSES, max_size=CLASSES), st.booleans(), st.sampled_from([None, 1, "\t"])
)
def test_text_comes_back_as_it_was(name: str, labels: list[str], ascii_only: bool, indent: Any) -> None:
    document = {"more": [{"x": [1.5e3, None, True, {}]}, []], "name": name, "labels": labels}
    written = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    assert load(written) == ("IE_OK", "", name, labels)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=120, deadline=None)
@given(VALUES, st.data())
def test_what_python_refuses_is_refused(value: Any, data: st.DataObject) -> None:
    """One byte of a document is changed: here JSON is what is JSON there, or is not, either."""
    text = bytearray(json.dumps({"other": value}, ensure_ascii=data.draw(st.booleans())).encode())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        document = json.loads(bytes(text), parse_constant=lambda constant: pytest.fail(constant))
        valid = isinstance(document, dict)
    except ValueError:  # UnicodeDecodeError is one
        valid = False
    if b"other" in text:  # else the member may have become one that means something
        assert accepts(bytes(text)) == valid


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{} {}",
        b"{,}",
        b'{"a":1,}',
        b'{"a" 1}',
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":1.}',
        b'{"a":.5}',
        b'{"a":1e}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":tru}',
        b'{"a":"\n"}',
        b'{"a":"\\x41"}',
        b'{"a":"\\u12g4"}',
        b'{"a":"\\u12',
        b'{"a":"\\',
        b'{"a":"\xff"}',
        b'{"a":"\xc0\x80"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xf4\x90\x80\x80"}',
        b'{"a":"\xe2\x82"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    status, message, _, _ = load(text)
    assert status == "IE_PLAN_METADATA"
    assert message.startswith("the plan's description of the network is damaged: ")


@pytest.mark.parametrize(
    "document",
    [
        {"name": 3},
        {"labels": "names"},
        {"labels": [1] * CLASSES},
        {"labels": ["x"] * (CLASSES + 1)},
        {"labels": ["x"] * (CLASSES - 1)},
        {"preprocess": []},
        {"preprocess": {"resize": 0}},
        {"preprocess": {"resize": 1.5}},
        {"preprocess": {"resize": 10**9}},
        {"preprocess": {"resize": "x"}},
        {"preprocess": {"order": "GBR"}},
        {"preprocess": {"mean": []}},
        {"preprocess": {"mean": [0.0] * (CHANNELS + 1)}},
        {"preprocess": {"mean": ["0"]}},
        {"preprocess": {"mean": [1e39]}},
        {"preprocess": {"std": [0.0]}},
        {"preprocess": {"std": [1e-60]}},
        {"preprocess": {"flip": True}},
    ],
    ids=str,
)
def test_what_means_nothing_is_refused(document: dict[str, Any]) -> None:
    plain = {"preprocess": {"mean": [0], "std": [1]}}
    assert accepts(json.dumps(plain).encode())
    merged = {**plain, **document}
    if isinstance(document.get("preprocess"), dict):
        merged["preprocess"] = {**plain["preprocess"], **document["preprocess"]}
    assert not accepts(json.dumps(merged).encode())


def test_the_later_of_two_members_counts() -> None:
    two = b'{"name": "a", "name": "b", "preprocess": {"mean": [0], "std": [1]}}'
    assert load(two)[2] == "b"


def test_surrogates_alone_become_the_replacement_character() -> None:
    names = {b"\\ud83d\\ude00": "\U0001f600", b"\\ud83dx": "\ufffdx", b"\\ude00\\ud83d": "\ufffd\ufffd"}
    for written, meant in names.items():
        text = b'{"preprocess": {"mean": [0], "std": [1]}, "name": "' + written + b'"}'
        assert load(text)[2] == meant
