"""What a call does on its device, seen from torch's dispatcher and the kernels; for Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

_ALLOCATIONS = ("empty", "new_empty", "empty_strided")


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and name not in _ALLOCATIONS:
            self.names.append(name)
        return func(*args, **kwargs or {})


@contextmanager
def operations(owner: type, method: str) -> Iterator[list[str]]:
    """A list that grows by what calls of ``owner.method`` do: aten ops but allocations and views, and kernels."""
    from inception_engine.kernels import walk as kernel
    from inception_engine.kernels.copy_output import copy_output

    from inception_engine import jit

    seen = _Seen()
    original = getattr(owner, method)

    def watched(*args: Any, **options: Any) -> Any:
        with seen:
            return original(*args, **options)

    class Launched:
        def __init__(self, name: str, function: Any) -> None:
            self.name, self.function = name, function

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            def launch(*args: Any, **options: Any) -> None:
                seen.names.append(self.name)
                with _disable_current_modes():  # what the interpreter does itself
                    self.function[grid](*args, **options)

            return launch

    def check(executor: jit.TritonExecutor) -> None:
        with _disable_current_modes():  # only the interpreter checks each call
            unwatched(executor)

    unwatched = jit.TritonExecutor.check
    with (
        mock.patch.object(owner, method, watched),
        mock.patch.object(kernel, "walk", Launched("walk", kernel.walk)),
        mock.patch.object(jit, "copy_output", Launched("copy_output", copy_output)),
        mock.patch.object(jit.TritonExecutor, "check", check),
    ):
        yield seen.names
