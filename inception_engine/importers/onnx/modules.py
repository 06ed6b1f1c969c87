"""Inception modules, recognised from the graph: what lies between one value and a concatenation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from inception_engine.importers.onnx.names import module_names
from inception_engine.network import INPUT, AveragePool, Concat, Conv, Layer, MaxPool


def group(layers: Sequence[Layer], logits: str) -> list[Layer]:
    """The layers with ``module`` set, those of a module side by side.

    A module is a concatenation and every layer that it needs behind one value, its entry, if these are convolutions
    and pools in two or more branches, and nothing else reads them. A concatenation inside is a branch that splits (as
    in Inception-v3's last modules): only the module's own concatenation may read it.
    """
    by_name = {layer.name: layer for layer in layers}
    users: dict[str, list[Layer]] = {INPUT: [], **{layer.name: [] for layer in layers}}
    for layer in layers:
        for name in layer.inputs:
            users[name].append(layer)
    entries = _entries(layers)
    member_of: dict[str, str] = {}
    concats = []
    for concat in reversed(layers):  # the outermost first: it takes those inside along
        if not isinstance(concat, Concat) or concat.name in member_of:
            continue
        members = _members(concat, entries[concat.name], by_name)
        inside = members - {concat.name}
        kinds = all(isinstance(by_name[name], Conv | MaxPool | AveragePool | Concat) for name in inside)
        closed = all(user.name in members for name in inside for user in users[name])
        nested = [name for name in inside if isinstance(by_name[name], Concat)]
        splits = all(users[name] == [concat] for name in nested)
        branches = len(set(concat.inputs)) > 1
        if kinds and closed and splits and branches and logits not in inside and not members & set(member_of):
            member_of |= dict.fromkeys(members, concat.name)
            concats.append(concat.name)
    concats.reverse()
    names = dict(zip(concats, module_names(concats), strict=True))
    return _side_by_side(layers, {name: names[concat] for name, concat in member_of.items()})


def _entries(layers: Sequence[Layer]) -> dict[str, str]:
    """For each layer the value that every path from the image to it passes last: its immediate dominator."""
    entry = {INPUT: INPUT}
    depth = {INPUT: 0}
    for layer in layers:
        common = layer.inputs[0]
        for name in layer.inputs[1:]:
            while common != name:
                if depth[common] >= depth[name]:
                    common = entry[common]
                else:
                    name = entry[name]
        entry[layer.name], depth[layer.name] = common, depth[common] + 1
    return entry


def _members(concat: Concat, entry: str, by_name: dict[str, Layer]) -> set[str]:
    members = {concat.name}
    waiting = [concat.name]
    while waiting:
        for name in by_name[waiting.pop()].inputs:
            if name != entry and name not in members:
                members.add(name)
                waiting.append(name)
    return members


def _side_by_side(layers: Sequence[Layer], module: dict[str, str]) -> list[Layer]:
    """A module's layers need its entry and each other alone, so all may stand where the first one does."""
    members: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.name in module:
            named = dataclasses.replace(layer, module=module[layer.name])
            members.setdefault(named.module, []).append(named)
    result: list[Layer] = []
    for layer in layers:
        if layer.name not in module:
            result.append(layer)
        else:
            result += members.pop(module[layer.name], [])
    return result
