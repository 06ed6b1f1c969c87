"""A stage with a wrong result."""


def run(job) -> None:
    job.row("right")
    job.row("wrong", False, "parity | too large", error=float("nan"))
