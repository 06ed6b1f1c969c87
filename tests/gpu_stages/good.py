"""A stage that works."""


def run(job) -> None:
    job.row("figure", value=1.25, batch=1)
