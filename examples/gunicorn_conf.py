"""The settings of gunicorn for wsgi_app.py: each worker has a keeper of its own.

    gunicorn --config gunicorn_conf.py wsgi_app:app

A keeper's thread does not survive a fork, so it is started after it.
"""

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

workers = 2


def post_worker_init(worker: Worker) -> None:
    """Start the worker's keeper.

    The hook `post_fork` would do as well, but a worker that is in it does not hear SIGTERM yet.
    """
    from wsgi_app import keeper  # noqa: PLC0415 - Only a worker has the application, unless it is preloaded.

    # With its `start_timeout=0` this returns at once. gunicorn kills a worker that is silent for 30 s.
    keeper.start()
    worker.log.info("worker %s keeps a token", worker.pid)


def worker_exit(_: Arbiter, worker: Worker) -> None:
    from wsgi_app import keeper  # noqa: PLC0415 - As above.

    keeper.close()
    worker.log.info("worker %s closed its keeper", worker.pid)
