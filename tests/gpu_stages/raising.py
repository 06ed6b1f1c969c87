"""A stage that raises."""


def run(job) -> None:
    job.row("before")
    raise ValueError("no such thing")
