"""A stage that does not end, nor does its child."""

import subprocess
import sys
import time


def run(job) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    job.row("child", value=child.pid)
    time.sleep(600)
