"""A Device of Twilio's real Voice SDK stays registered, kept by the example out of a real sidecar."""

import contextlib
import json
import threading
from collections import deque

import jwt
import pytest
from npm_client import NodeProgram, modules_or_skip
from sidecar import a_config, running
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from token_keeper.testing import FakeBackend, FakeTwilsock

VOICE = {"voice": {"incoming": {"allow": True}, "outgoing": {"application_sid": "AP" + "0" * 32}}}


class Signalling:
    """The least of the Voice SDK's server: takes tokens, or refuses them with the codes in *denials*."""

    def __init__(self):
        self.denials = deque()
        self.tokens = []
        self._sockets = set()
        self._server = serve(self._talk, "127.0.0.1", 0, compression=None)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        for socket in tuple(self._sockets):
            socket.close()
        self._thread.join()

    @property
    def address(self):
        return "{}:{}".format(*self._server.socket.getsockname())

    def refuse(self, code):
        """Tell every client that its token is refused."""
        for socket in tuple(self._sockets):
            self._send(socket, "error", error={"code": code, "message": "refused"})

    def drop(self):
        for socket in tuple(self._sockets):
            socket.close()

    def _talk(self, socket):
        self._sockets.add(socket)
        with contextlib.suppress(ConnectionClosed):
            for raw in socket:
                self._answer(socket, json.loads(raw))
        self._sockets.discard(socket)

    def _answer(self, socket, message):
        if message["type"] == "register":
            self._send(socket, "ready")
        if message["type"] == "listen":
            token = message["payload"]["token"]
            self.tokens.append(token)
            if self.denials:
                self._send(socket, "error", error={"code": self.denials.popleft(), "message": "refused"})
            else:
                claims = jwt.decode(token, options={"verify_signature": False})
                ttl = claims["exp"] - claims["nbf"]
                self._send(
                    socket,
                    "connected",
                    region="us1",
                    token={"identity": claims["grants"]["identity"], "ttl": ttl},
                )

    def _send(self, socket, kind, **payload):
        socket.send(json.dumps({"type": kind, "payload": payload}))


class Kept:
    """A Device, its server, and where its tokens come from."""

    def __init__(self, program, server, backend, sidecar):
        self.next, self._program = program.next, program
        self.server, self.backend, self.sidecar = server, backend, sidecar

    def open(self, **options):
        where = {"socketPath": str(self.sidecar.socket_path), "token": "chat"}
        self._program.tell(order="open", address=self.server.address, where=where, **options)

    def opened(self):
        self.open()
        self.next("registered")


@pytest.fixture
def lifetime():
    return 3600


@pytest.fixture
def kept(request, lifetime):
    modules = modules_or_skip(request.config)
    minter = FakeTwilsock()
    policy = "[tokens.chat.policy]\nsplay = false"
    with (
        FakeBackend(mint=lambda now: minter.mint(now, lifetime=lifetime, grants=VOICE)) as backend,
        running(a_config(backend.url, extra=policy)) as sidecar,
        Signalling() as server,
        NodeProgram("kept-device.mjs", modules) as program,
    ):
        yield Kept(program, server, backend, sidecar)


@pytest.mark.parametrize("lifetime", [3])
def test_its_token_is_renewed_before_it_expires(kept):
    kept.opened()

    kept.next("updated", generation=2)

    assert kept.server.tokens[:2] == list(kept.backend.issued)[:2]


@pytest.mark.parametrize("lifetime", [11])
def test_its_warning_changes_nothing_and_the_token_is_kept(kept):
    kept.opened()

    kept.next("tokenWillExpire")

    assert len(set(kept.server.tokens)) == 1


def test_denied_when_it_registers_it_recovers_with_another_token(kept):
    kept.server.denials.append(20101)

    kept.open()

    kept.next("denied", generation=1, code=20101)
    kept.next("recovered", generation=2)
    assert kept.server.tokens == list(kept.backend.issued)


def test_denied_twice_it_recovers_with_the_third_token(kept):
    kept.server.denials.extend([20104, 20104])

    kept.open()

    kept.next("denied", generation=1)
    kept.next("denied", generation=2)
    kept.next("recovered", generation=3)


def test_refused_while_registered_it_recovers_without_the_backend_once_that_is_back(kept):
    kept.opened()
    kept.backend.down()
    kept.server.refuse(20104)
    kept.next("denied", generation=1, code=20104)

    kept.backend.up()

    kept.next("recovered", generation=2)


def test_a_lost_socket_costs_no_token(kept):
    kept.opened()

    kept.server.drop()

    kept.next("unregistered")
    kept.next("registered")
    assert len(kept.backend.issued) == 1
