"""For processes under libfaketime 0.9: Python sleeps until an absolute time, which it answers with
EINVAL."""

import select
import time


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep
