"""The dashboard's three files and the headers that they travel with. Nothing else is ever served."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

JAVASCRIPT = "text/javascript; charset=utf-8"
PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/static/app.js": ("app.js", JAVASCRIPT),
    "/static/board.js": ("board.js", JAVASCRIPT),
    "/static/elements.js": ("elements.js", JAVASCRIPT),
    "/static/known.js": ("known.js", JAVASCRIPT),
    "/static/picture.js": ("picture.js", JAVASCRIPT),
    "/static/rows.js": ("rows.js", JAVASCRIPT),
    "/static/stream.js": ("stream.js", JAVASCRIPT),
    "/static/words.js": ("words.js", JAVASCRIPT),
    "/static/style.css": ("style.css", "text/css; charset=utf-8"),
}
"""Each path, the file of this package behind it, and its content type."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The page may run its own script, use its own style sheet and ask its own server; nothing more."""

HEADERS = {
    # A stored page would outlive an upgrade; with the validator it costs one short answer.
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def routes() -> list[Route]:
    """Return the routes of the page and its parts, for `GET` and `HEAD`.

    They are public: no data is in them.
    """
    return [
        Route(path, _page(name, content_type), methods=["GET"], name=name)
        for path, (name, content_type) in PAGES.items()
    ]


def _page(name: str, content_type: str) -> Callable[[Request], Awaitable[Response]]:
    body = files("token_keeper.sidecar.dashboard").joinpath(name).read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {**HEADERS, "content-type": content_type, "etag": etag}

    async def answer(request: Request) -> Response:
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers)

    return answer
