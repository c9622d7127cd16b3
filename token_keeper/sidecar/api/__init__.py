"""The HTTP API, as an ASGI application. Who may call it is decided before it is entered."""

from token_keeper.sidecar.api._app import make_app

__all__ = ["make_app"]
