"""Triton kernels that run a compiled plan on a GPU. The folder imports as ``inception_engine.kernels``."""
