"""HTTP clients: one for all sources of an event loop, unless a source needs its own."""

from __future__ import annotations

import asyncio
import functools
import ssl
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from token_keeper import _fork as fork
from token_keeper._errors import ConfigError, TransientFetchError
from token_keeper.sources._source import as_cause


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Files in PEM that say whom to trust and who we are. Read again when they change."""

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Return what changes when one of the files does."""
        stats = [Path(path).stat() for path in (self.ca_file, self.client_cert, self.client_key) if path]
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)

    def context(self, default: ssl.SSLContext) -> ssl.SSLContext:
        """Return a context with these files, or *default* if there are none."""
        if self == TlsFiles():
            return default
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else _trusting_context()
        if self.client_cert is not None:
            # Without a password OpenSSL would ask for one at the terminal.
            context.load_cert_chain(self.client_cert, self.client_key, password="")
        return context


@dataclass(frozen=True, slots=True)
class _Own:
    """A client that only one source uses, and how its files were when it was made."""

    stamp: object
    client: Any


class ClientLease:
    """The HTTP client of one source: passed in, its own, or shared.

    Args:
        client: An AsyncClient of httpx or httpx2, which is never closed here.
        tls: Files for a client of its own.
        proxy: URL or `httpx.Proxy` for a client of its own.

    Raises:
        ConfigError: If the client cannot work, or is combined with settings of one.
    """

    def __init__(self, *, client: Any, tls: TlsFiles, proxy: object) -> None:
        if client is not None:
            _check_client(client, tls, proxy)
        if tls.client_key is not None and tls.client_cert is None:
            raise ConfigError("client_key", "needs client_cert, too")
        self._passed_in = client
        self._tls = tls
        self._proxy = proxy
        # Keepers in several threads may share a source: each has a loop of its own.
        self._held: dict[asyncio.AbstractEventLoop, _Own | None] = {}

    async def client(self) -> Any:
        """Return the client to use in the running loop.

        Raises:
            TransientFetchError: If a file for TLS cannot be used.
        """
        if self._passed_in is not None:
            return self._passed_in
        loop = asyncio.get_running_loop()
        if loop not in self._held:
            self._forget_closed_loops()
        if self._tls == TlsFiles() and self._proxy is None:
            if loop not in self._held:
                self._held[loop] = None
                _shared.lease(loop)
            return _shared.client(loop)
        return await self._private(loop)

    async def aclose(self) -> None:
        """Give the client of the running loop back; the last one closes it. Harmless if there is none."""
        client = self._given_back(asyncio.get_running_loop())
        if client is not None:
            await client.aclose()

    def _given_back(self, loop: asyncio.AbstractEventLoop) -> Any | None:
        """Let go of the client of *loop*. Return it if nobody uses it any more: it is to be closed."""
        if loop not in self._held:
            return None
        own = self._held.pop(loop)
        return _shared.give_back(loop) if own is None else own.client

    def _forget_closed_loops(self) -> None:
        # Their clients cannot be closed any more; with their loops their connections are gone.
        for loop in list(self._held):
            if loop.is_closed():
                self._given_back(loop)

    async def _private(self, loop: asyncio.AbstractEventLoop) -> Any:
        try:
            stamp, own = self._tls.stamp(), self._held.get(loop)
            if own is None or stamp != own.stamp:
                context = self._tls.context(_shared.context())
                await self.aclose()
                own = self._held[loop] = _Own(stamp, new_client(context, proxy=self._proxy))
        except (OSError, ssl.SSLError) as error:
            raise TransientFetchError(
                f"ca_file, client_cert or client_key cannot be used ({type(error).__name__}); "
                "a valid token stays. "
                "Check that they are readable, in PEM, without a passphrase, and belong together"
            ) from as_cause(error)
        return own.client


class _SharedClients:
    """One client for each event loop, as long as a source uses it, and one context for all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._leases: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
        self._contexts: WeakValueDictionary[str, ssl.SSLContext] = WeakValueDictionary()
        fork.watch(self)

    def _after_fork(self) -> None:
        """Replace the lock: a thread of the parent may have held it at the fork."""
        self._lock = threading.Lock()

    def lease(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._leases[loop] = self._leases.get(loop, 0) + 1

    def client(self, loop: asyncio.AbstractEventLoop) -> Any:
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = new_client(self.context())
        return client

    def give_back(self, loop: asyncio.AbstractEventLoop) -> Any | None:
        """Return the client if nobody uses it any more: it is to be closed."""
        with self._lock:
            left = self._leases[loop] = self._leases.get(loop, 1) - 1
            if left > 0:
                return None
            del self._leases[loop]
            return self._clients.pop(loop, None)

    def context(self) -> ssl.SSLContext:
        with self._lock:
            context = self._contexts.get("default")
            if context is None:
                context = self._contexts["default"] = _trusting_context()
            return context


_shared: Final = _SharedClients()


def new_client(context: ssl.SSLContext, *, proxy: Any = None) -> Any:
    """Return an httpx client that keeps no cookies: its sources share nothing but connections."""
    return _cookieless()(verify=context, proxy=proxy, timeout=None)


@functools.cache
def _cookieless() -> Any:
    import httpx  # noqa: PLC0415 - `import token_keeper` must not load it.

    class NoCookies(httpx.Cookies):
        """Cookies that stay none. Looking for them costs httpx a tenth of a fetch."""

        def extract_cookies(self, response: httpx.Response) -> None:
            """Leave what *response* sets where it is."""

    none = NoCookies()

    class CookielessClient(httpx.AsyncClient):
        """A client that neither keeps nor sends cookies."""

        @property
        def cookies(self) -> httpx.Cookies:
            return none

        @cookies.setter
        def cookies(self, cookies: object) -> None:
            """Do nothing: httpx sets them once, in its constructor."""

    return CookielessClient


def package_of(client: Any) -> ModuleType:
    """Return httpx or httpx2, whichever *client* is of."""
    for kind in type(client).__mro__:
        root = kind.__module__.partition(".")[0]
        if kind.__name__ == "AsyncClient" and root in {"httpx", "httpx2"}:
            return sys.modules[root]
    raise ConfigError("client", "must be an httpx.AsyncClient (or of httpx2)")


def _trusting_context() -> ssl.SSLContext:
    import httpx  # noqa: PLC0415 - `import token_keeper` must not load it.

    return httpx.create_ssl_context()


def _check_client(client: object, tls: TlsFiles, proxy: object) -> None:
    if any(kind.__name__ == "Client" for kind in type(client).__mro__):
        raise ConfigError("client", "would block the event loop: pass an httpx.AsyncClient")
    package_of(client)
    if tls != TlsFiles() or proxy is not None:
        raise ConfigError(
            "client",
            "cannot be combined with ca_file, client_cert, client_key or proxy: set them on the client",
        )
