"""Celery tasks that call an API: each process of the prefork pool has a keeper of its own.

    TOKEN_URL=https://backend.example/token API_URL=https://api.example/things \\
        CELERY_BROKER_URL=redis://localhost celery --app celery_app worker --pool prefork

A keeper's thread does not survive a fork, so it is started in each child.
"""

import logging
import os

import httpx
from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown

from token_keeper import HttpSource, TokenKeeper, TokenUnavailable
from token_keeper.adapters.httpx import KeeperAuth

log = logging.getLogger(__name__)
app = Celery("things")
# Neither has a thread or a connection yet, so both may be made before the fork.
keeper = TokenKeeper(HttpSource(os.environ["TOKEN_URL"]), start_timeout=0)
client = httpx.Client(auth=KeeperAuth(keeper, timeout=10))


@worker_process_init.connect
def start_keeper(**_: object) -> None:
    # With `start_timeout=0` this returns at once. Celery kills a child that is not up after 4 s.
    keeper.start()


@worker_process_shutdown.connect
def close_keeper(**_: object) -> None:
    keeper.close()
    log.info("process %s closed its keeper", os.getpid())


# In an outage the task comes back later, instead of failing.
@app.task(autoretry_for=(TokenUnavailable, httpx.TransportError), retry_backoff=True, max_retries=10)
def call_api() -> int:
    return client.get(os.environ["API_URL"]).status_code
