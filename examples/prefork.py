"""A keeper in each process of a server that forks.

    TOKEN_URL=https://backend.example/token python prefork.py

A keeper's thread does not survive a fork, so each child makes and starts its own. For gunicorn see
gunicorn_conf.py, for Celery celery_app.py.
"""

import os
import sys

from token_keeper import HttpSource, TokenKeeper


def work(number: int) -> None:
    with TokenKeeper(HttpSource(os.environ["TOKEN_URL"]), name=f"child-{number}") as keeper:
        print(f"child {number} has a token for {keeper.snapshot.usable_for:.0f} s", flush=True)


def fork(number: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work(number)
        os._exit(0)
    finally:
        os._exit(1)  # Only after an error: a child must never go on as if it were the parent.


children = [fork(number) for number in (1, 2)]
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
