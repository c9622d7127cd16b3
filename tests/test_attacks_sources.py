"""Attacks on sources and stores that worked once: servers that lie, clocks that jump, directories that go."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from attacking import a_hostile_backend, says
from authorization_server import AuthorizationServer
from commanding import begun, environ
from configuring import written
from fetching import failure, fetch, server_tls, shown
from rotating import LIFE_S, OWNER, T0, Fault, FaultySlot, RotatingServer, World
from sidecar import eventually
from storing import a_record
from test_oauth2_grants import a_key

from token_keeper import ConfigError, RefreshPolicy, Secret, TokenKeeper, TransientFetchError
from token_keeper._errors import StoreError
from token_keeper.cli.login._target import Target
from token_keeper.sources import CommandSource, HttpSource, OAuth2Source, SignedJwt
from token_keeper.sources._asking import Occasion, asked
from token_keeper.store import DirectoryStore, MemoryStore
from token_keeper.testing import FakeBackend, run_virtual

CANARY = "canary-0123456789abcdef"
YEAR_S = 366 * 86_400.0


@pytest.fixture
def world():
    return World()


def failed(lineage):
    with pytest.raises(TransientFetchError) as caught:
        run_virtual(lineage.fetch(tries=1))
    return caught.value


def a_disk_that_fails_once(world):
    """Return a slot that cannot write the answer to the first request."""
    return FaultySlot(world.slot, write2=StoreError("/store/chat.grant", "the disk is broken"))


def lost_outside_the_window(world):
    """Have an answer lost, and the time go by in which the server forgives."""
    process = world.process()
    run_virtual(process.fetch(tries=1))
    world.now += LIFE_S / 2
    world.server.faults.extend([Fault.LOST_BEFORE])
    failed(process)
    world.now += world.rule.window_s + 1
    return process


class Vandal(RotatingServer):
    """Removes *directory* before its answer arrives."""

    directory: Path | None = None

    async def exchange(self, fields):
        outcome = await super().exchange(fields)
        if self.directory is not None:
            shutil.rmtree(self.directory)
            self.directory = None
        return outcome


# What a server may answer


def test_a_refresh_token_that_no_form_can_hold_does_not_replace_one_that_works():
    """JSON can say half of a surrogate pair, which has no place in UTF-8."""
    tokens = iter(["\ud800", f"{CANARY}-2", f"{CANARY}-3"])
    store = MemoryStore()
    answer = {"access_token": "opaque", "expires_in": 1, "token_type": "Bearer"}
    with FakeBackend(wrap=lambda _: answer | {"refresh_token": next(tokens)}) as backend:
        source = OAuth2Source(
            backend.url,
            grant="refresh_token",
            client_id="robot",
            refresh_token=f"{CANARY}-1",
            store=store,
            stored_as="chat",
        )
        fetch(source)
        assert store.slot("chat").read().refresh_token == Secret(f"{CANARY}-1")
        fetch(source)

    assert store.slot("chat").read().refresh_token == Secret(f"{CANARY}-2")


def test_a_stored_token_that_no_form_can_hold_does_not_keep_anybody_from_logging_in():
    store = MemoryStore()
    with store.slot("chat").try_lease() as lease:
        lease.write(a_record("\ud800"))

    assert Target(name="chat", link=None, source=None, slot=store.slot("chat")).fingerprint()


@pytest.mark.parametrize("name", ["token_endpoint", "device_authorization_endpoint", "revocation_endpoint"])
def test_metadata_of_an_issuer_with_tls_send_no_secret_in_the_clear_not_even_to_loopback(tmp_path, name):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stolen = says({"access_token": CANARY, "token_type": "Bearer"})
    metadata: dict[str, str] = {}
    well_known = "/.well-known/oauth-authorization-server"
    with (
        a_hostile_backend({"/steal": stolen}) as thief,
        a_hostile_backend(
            {well_known: lambda reply: says(metadata | {"issuer": issuer_of(reply)})(reply)}
        ) as issuer,
    ):
        issuer.socket = server_tls(authority).wrap_socket(issuer.socket, server_side=True)
        url = issuer.url("").replace("http:", "https:")
        metadata |= {"token_endpoint": f"{url}/token", name: thief.url("/steal")}
        source = OAuth2Source(
            issuer=url, client_id="robot", client_secret=CANARY, ca_file=str(tmp_path / "ca.pem")
        )

        assert "in the clear" in str(asyncio.run(outcome_at(source, name)))
        assert thief.asked == []


def issuer_of(reply):
    return f"https://127.0.0.1:{reply.server.server_address[1]}"


async def outcome_at(source, name):
    """Return the error of a request to the endpoint *name*."""
    endpoint = source._endpoint
    try:
        if name == "token_endpoint":
            return (await endpoint.exchange({"grant_type": "client_credentials"})).error
        if name == "revocation_endpoint":
            return await endpoint.revoke(Secret("token"), "access_token")
        return (await endpoint.authorize_device({})).error
    finally:
        await source.aclose()


def test_a_login_goes_on_with_a_private_memory_and_no_core_dump(tmp_path):
    """It holds a client secret, a device code, and at last a refresh token."""
    with AuthorizationServer() as server:
        config = written(
            tmp_path,
            f'[store]\ndirectory = "{tmp_path}/state"\n[tokens.chat.source]\ntype = "oauth2"\n'
            f'grant = "device_code"\nissuer = "{server.issuer}"\nclient_id = "robot"\n'
            'client_secret = "the-secret-of-the-robot"\n',
        )
        quiet = environ(DISPLAY="", WAYLAND_DISPLAY="", BROWSER="")
        with begun("login", "chat", "--config", str(config), env=quiet) as process:
            eventually(lambda: server.logins, within_s=20.0, what="the code")
            limits = Path(f"/proc/{process.pid}/limits").read_text()
            process.terminate()
            process.communicate(timeout=20)

    (core,) = [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core == ["0", "0"]


# What a program that uses us may hand over


@pytest.mark.parametrize(
    "stored", [{}, {"store": MemoryStore(), "stored_as": "chat"}], ids=["free", "stored"]
)
def test_claims_that_contain_themselves_are_a_failed_fetch_that_shows_no_key(stored):
    key = a_key("EC")[0]
    endless: list[object] = [CANARY]
    endless.append(endless)
    source = OAuth2Source(
        "http://127.0.0.1:9/token",
        grant="jwt_bearer",
        private_key=key,
        assertion={"iss": "robot", "sub": lambda: endless},
        **stored,
    )
    text = shown_below(failure(source))
    assert "contains itself" in text
    assert key.splitlines()[1] not in text


@pytest.mark.parametrize(
    "source",
    [
        lambda endless: HttpSource("http://127.0.0.1:9/", headers={"X-Key": lambda: endless}),
        lambda endless: CommandSource(["true"], env={"KEY": lambda: endless}),
        lambda endless: OAuth2Source(
            "http://127.0.0.1:9/", client_id="robot", client_secret="s", extra={"k": lambda: endless}
        ),
    ],
    ids=["headers", "env", "extra"],
)
def test_a_function_that_returns_what_contains_itself_fails_a_fetch_and_nothing_else(source):
    endless: list[object] = []
    endless.append(endless)
    assert isinstance(failure(source(endless)), TransientFetchError)


def test_a_header_that_no_jwt_can_have_is_an_error_of_the_setting_and_not_of_each_fetch():
    key = a_key("EC")[0]
    with pytest.raises(ConfigError, match="kid"):
        SignedJwt(private_key=key, claims={"iss": "robot"}, headers={"kid": 5})
    with pytest.raises(ConfigError, match="assertion_headers"):
        OAuth2Source(
            "http://127.0.0.1:9/", client_id="robot", private_key=key, assertion_headers={"kid": None}
        )


def shown_below(error):
    """Return what could be shown of *error* but for the frame of the test, which holds what it passed."""
    return shown(error.with_traceback(error.__traceback__.tb_next))


def test_two_keepers_with_one_source_do_not_throw_each_others_connections_away():
    quick = RefreshPolicy(min_interval_s=0.1)
    with FakeBackend() as backend:
        source = HttpSource(backend.url)
        with TokenKeeper(source, policy=quick) as one, TokenKeeper(source, policy=quick) as other:
            one.refresh()
            before = open_descriptors()
            for _ in range(4):
                other.refresh()
                one.refresh()
            assert open_descriptors() <= before


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


# What may happen to a machine


def test_a_grant_survives_that_its_directory_is_removed_while_it_is_renewed(tmp_path):
    world = World(store=DirectoryStore(tmp_path / "store"))
    world.server = Vandal(world.wall)
    world.seed = world.server.first()
    process = world.process()
    run_virtual(process.fetch(tries=1))
    world.now += LIFE_S
    world.server.directory = tmp_path / "store"
    assert "in memory only" in str(failed(process))

    run_virtual(process.fetch(tries=1))
    world.now += LIFE_S
    run_virtual(process.fetch(tries=1))
    assert not world.server.reuses


def test_what_could_not_be_written_outlives_another_process_that_only_heard_nothing(world):
    process = world.process(a_disk_that_fails_once(world))
    assert "in memory only" in str(failed(process))
    world.server.faults.extend([Fault.LOST_BEFORE])
    failed(world.process())

    run_virtual(process.fetch(tries=1))
    assert world.record().refresh_token == Secret("refresh-2")
    assert world.server.requests == ["refresh-1", "refresh-1"]


def test_a_clock_that_was_years_ahead_does_not_hold_a_grant_for_years(world):
    world.now = T0 + 10 * YEAR_S
    process = lost_outside_the_window(world)
    assert "was lost" in str(failed(process))
    world.now = T0

    assert run_virtual(process.fetch(tries=1)).secret
    assert world.record().mark is None


def test_a_grant_is_not_held_for_the_sake_of_an_access_token_that_servers_refuse(world):
    """Many servers end the old access token when they issue a new one, whose answer may have been lost."""
    process = lost_outside_the_window(world)
    assert "was lost" in str(failed(process))
    denied = Occasion(is_denied=lambda secret: secret == world.record().access_token)

    async def after_a_denial():
        return await asyncio.create_task(asked(process, 1, denied))

    assert run_virtual(after_a_denial()).secret
    assert world.record().mark is None


def test_a_grant_is_still_there_after_a_while_with_another_one_under_its_name():
    """Somebody tries client_credentials with the store, and changes his mind."""
    store = MemoryStore()
    with FakeBackend(wrap=lambda token: {"access_token": token, "token_type": "Bearer"}) as backend:
        kept = a_record("the-login", owner=f"{backend.url} robot")
        with store.slot("chat").try_lease() as lease:
            lease.write(kept)
        fetch(OAuth2Source(backend.url, client_id="robot", client_secret="s", store=store, stored_as="chat"))

    record = store.slot("chat").read()
    assert record.access_token != kept.access_token
    assert record.refresh_token == Secret("the-login")


def test_a_process_without_descriptors_is_told_so_and_not_to_check_the_owner_of_a_file(tmp_path):
    store = DirectoryStore(tmp_path / "store")
    with store.slot("chat").try_lease() as lease:
        lease.write(a_record(owner=OWNER))
        with no_more_descriptors(), pytest.raises(StoreError) as caught:
            lease.read()

    assert os.strerror(errno.EMFILE) in str(caught.value)
    assert "ulimit -n" in str(caught.value)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
