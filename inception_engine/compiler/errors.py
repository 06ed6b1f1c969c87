"""What the compiler refuses."""


class CompileError(ValueError):
    """The network, or what was asked for, is outside what the compiler can do; the message says what."""
