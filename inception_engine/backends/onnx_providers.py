"""ONNX Runtime's execution providers by short names. Imports nothing: the benchmark takes no more of this package."""

from __future__ import annotations

# And what is set for them: float32 is float32, not TF32.
PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
    "tensorrt": ("TensorrtExecutionProvider", {}),
}
