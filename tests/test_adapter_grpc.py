"""The adapter for gRPC, against a real server: interceptors of both kinds, and call credentials."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import grpc
import grpc.aio
import pytest
from grpc_server import FORBIDDEN, FROM_STREAM, SLOW, STREAMS, TO_STREAM, UNARY, GuardedEcho
from guarding import keeping, until

from token_keeper import AsyncTokenKeeper, ConfigError, HttpSource, TokenKeeper, TokenUnavailable
from token_keeper.adapters.grpc import KeeperInterceptor, KeeperPlugin, aio_interceptors
from token_keeper.testing import FakeBackend


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def server(backend):
    with GuardedEcho(backend) as server:
        yield server


@pytest.fixture
def keeper(backend):
    with keeping(backend) as keeper:
        yield keeper


@contextmanager
def intercepted(keeper, server, **options):
    with grpc.insecure_channel(server.insecure) as channel:
        yield grpc.intercept_channel(channel, KeeperInterceptor(keeper, **options))


@contextmanager
def with_credentials(target, plugin):
    credentials = grpc.composite_channel_credentials(
        grpc.local_channel_credentials(), grpc.metadata_call_credentials(plugin)
    )
    with grpc.secure_channel(target, credentials) as channel:
        yield channel


@asynccontextmanager
async def intercepted_aio(keeper, server, **options):
    interceptors = aio_interceptors(keeper, **options)
    async with grpc.aio.insecure_channel(server.insecure, interceptors=interceptors) as channel:
        yield channel


@contextmanager
def calling_blocking(keeper, server):
    with intercepted(keeper, server) as channel:
        yield channel.unary_unary


@contextmanager
def calling_aio(keeper, server):
    """Yield what makes calls of an asyncio channel, from any thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(20)

    async def opened():
        return grpc.aio.insecure_channel(server.insecure, interceptors=aio_interceptors(keeper))

    async def called(path, request, **options):
        return await channel.unary_unary(path)(request, **options)

    channel = run(opened())
    try:
        yield lambda path: lambda request, **options: run(called(path, request, **options))
    finally:
        run(channel.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def calling_with_credentials(keeper, server):
    with with_credentials(server.secure, KeeperPlugin(keeper)) as channel:
        yield channel.unary_unary


every_way = pytest.mark.parametrize(
    "calling",
    [calling_blocking, calling_aio, calling_with_credentials],
    ids=["blocking", "asyncio", "call credentials"],
)
both_interceptors = pytest.mark.parametrize(
    "calling", [calling_blocking, calling_aio], ids=["blocking", "asyncio"]
)


@every_way
def test_the_token_is_used(calling, keeper, server):
    with calling(keeper, server) as make:
        assert make(UNARY)(b"hello") == b"hello"

    assert list(server.seen) == [keeper.token]


@every_way
def test_it_is_renewed_under_load_without_a_failed_call(calling, keeper, server):
    done = threading.Event()

    def load(make):
        while not done.is_set():
            assert make(UNARY)(b"x") == b"x"

    with calling(keeper, server) as make, ThreadPoolExecutor(4) as threads:
        loads = [threads.submit(load, make) for _ in range(4)]
        try:
            until(lambda: server.seen)
            for _ in range(4):
                token = keeper.refresh()
                until(lambda token=token: token in server.seen)
        finally:
            done.set()
        for each in loads:
            each.result()

    assert len(set(server.seen)) >= 5


@both_interceptors
def test_twenty_concurrent_refusals_cause_one_refresh_and_all_calls_succeed(calling, keeper, server, backend):
    server.revoke_all()

    with calling(keeper, server) as make, ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(make(UNARY), [b"x"] * 20))

    assert answers == [b"x"] * 20
    assert len(backend.issued) == 2


@every_way
def test_while_the_backend_is_down_calls_go_on_with_the_valid_token(calling, keeper, server, backend):
    held = keeper.token
    backend.down()
    with pytest.raises(Exception, match="token"):
        keeper.refresh(timeout=2)

    with calling(keeper, server) as make:
        assert [make(UNARY)(b"x") for _ in range(5)] == [b"x"] * 5

    assert set(server.seen) == {held}


@both_interceptors
def test_a_missing_right_is_no_denial(calling, keeper, server, backend):
    with calling(keeper, server) as make, pytest.raises(grpc.RpcError) as refused:
        make(FORBIDDEN)(b"x")

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert keeper.snapshot.denied_by == ()
    assert len(backend.issued) == len(server.seen) == 1


@both_interceptors
def test_a_server_that_refuses_everything_gets_one_retry_for_a_call(calling, keeper, server):
    server.refuse_all()

    with calling(keeper, server) as make, pytest.raises(grpc.RpcError) as refused:
        make(UNARY)(b"x")

    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(server.seen) == len(set(server.seen)) == 2


@both_interceptors
def test_the_servers_refusal_stands_if_no_other_token_comes_within_the_calls_timeout(
    calling, keeper, server, backend
):
    server.revoke_all()
    backend.down()

    with calling(keeper, server) as make, pytest.raises(grpc.RpcError) as refused:
        make(UNARY)(b"x", timeout=0.3)

    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(server.seen) == 1


@both_interceptors
def test_a_call_with_its_own_authorization_is_left_alone(calling, keeper, server):
    metadata = (("authorization", "Bearer my-own"),)

    with calling(keeper, server) as make, pytest.raises(grpc.RpcError):
        make(UNARY)(b"x", metadata=metadata)

    assert list(server.seen) == ["my-own"]
    assert keeper.snapshot.denied_by == ()


@both_interceptors
def test_without_a_token_the_call_says_so_in_time(calling, server):
    with (
        TokenKeeper() as keeper,
        calling(keeper, server) as make,
        pytest.raises(TokenUnavailable, match="hand one in"),
    ):
        make(UNARY)(b"x", timeout=0.05)

    assert not server.seen


@both_interceptors
def test_other_metadata_goes_along(calling, keeper, server):
    with calling(keeper, server) as make:
        assert make(UNARY)(b"x", metadata=(("trace", "1"),)) == b"x"


def test_a_future_is_reported_but_not_retried(keeper, server, backend):
    server.revoke_all()

    with intercepted(keeper, server) as channel:
        server.may_answer.clear()
        call = channel.unary_unary(UNARY).future(b"x")
        server.may_answer.set()
        assert call.code() is grpc.StatusCode.UNAUTHENTICATED
        until(lambda: len(backend.issued) == 2)
        assert channel.unary_unary(UNARY).future(b"x").result() == b"x"


def test_streams_are_reported_and_started_again_by_the_program(keeper, server, backend):
    server.revoke_all()
    server.may_end.set()

    with intercepted(keeper, server) as channel:
        with pytest.raises(grpc.RpcError):
            list(channel.unary_stream(TO_STREAM)(b"x"))
        until(lambda: len(backend.issued) == 2)

        assert list(channel.unary_stream(TO_STREAM)(b"x")) == [b"x"]
        assert channel.stream_unary(FROM_STREAM)(iter([b"x", b"y"])) == b"xy"
        assert list(channel.stream_stream(STREAMS)(iter([b"x", b"y"]))) == [b"x", b"y"]


def test_streams_of_asyncio_are_reported_and_started_again_by_the_program(backend, server):
    async def main():
        async with (
            AsyncTokenKeeper(HttpSource(backend.url)) as keeper,
            intercepted_aio(keeper, server) as channel,
        ):
            server.revoke_all()
            server.may_end.set()
            with pytest.raises(grpc.RpcError):
                [part async for part in channel.unary_stream(TO_STREAM)(b"x")]

            assert [part async for part in channel.unary_stream(TO_STREAM)(b"x")] == [b"x"]
            assert await channel.stream_unary(FROM_STREAM)(iter([b"x", b"y"])) == b"xy"
            assert [part async for part in channel.stream_stream(STREAMS)(iter([b"x"]))] == [b"x"]

    asyncio.run(main())


def test_a_cancelled_call_of_asyncio_ends_at_the_server(keeper, server):
    async def main():
        async with intercepted_aio(keeper, server) as channel:
            call = asyncio.ensure_future(channel.unary_unary(SLOW)(b"x"))
            await asyncio.to_thread(until, lambda: server.seen)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            # While the channel is open still.
            assert await asyncio.to_thread(server.may_end.wait, 5)

    asyncio.run(main())

    assert keeper.snapshot.denied_by == ()


def test_streams_with_their_own_authorization_are_left_alone(keeper, server):
    metadata = (("authorization", "Bearer my-own"),)

    async def main():
        async with intercepted_aio(keeper, server) as channel:
            await channel.stream_unary(FROM_STREAM)(iter([b"x"]), metadata=metadata)

    with intercepted(keeper, server) as channel, pytest.raises(grpc.RpcError):
        list(channel.unary_stream(TO_STREAM)(b"x", metadata=metadata))
    with pytest.raises(grpc.RpcError):
        asyncio.run(main())

    assert set(server.seen) == {"my-own"}
    assert keeper.snapshot.denied_by == ()


def test_call_credentials_go_to_the_first_server_only(keeper, server):
    plugin = KeeperPlugin(keeper)
    with GuardedEcho() as other:
        with with_credentials(server.secure, plugin) as channel:
            assert channel.unary_unary(UNARY)(b"x") == b"x"
        with with_credentials(other.secure, plugin) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(UNARY)(b"x")

        assert set(other.seen) == {None}


def test_call_credentials_go_to_the_named_servers_only(keeper, server):
    plugin = KeeperPlugin(keeper, origins="https://api.example")

    with with_credentials(server.secure, plugin) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(UNARY)(b"x")

    assert set(server.seen) == {None}


def test_call_credentials_never_go_over_an_insecure_channel(keeper, server):
    call = grpc.metadata_call_credentials(KeeperPlugin(keeper))

    with grpc.insecure_channel(server.insecure) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(UNARY)(b"x", credentials=call)

    assert not server.seen


def test_call_credentials_are_waited_for_without_a_thread_for_each_call(server, backend):
    backend.down()
    with (
        keeping(backend, start_timeout=0) as keeper,
        with_credentials(server.secure, KeeperPlugin(keeper)) as channel,
    ):
        calls = [channel.unary_unary(UNARY).future(b"x") for _ in range(20)]
        until(lambda: [t.name for t in threading.enumerate()].count("token_keeper grpc") == 1)
        backend.up()

        assert [call.result(10) for call in calls] == [b"x"] * 20


def test_call_credentials_fail_the_call_if_no_token_comes_in_time(server):
    with TokenKeeper() as keeper:
        plugin = KeeperPlugin(keeper, timeout=0.05)
        with with_credentials(server.secure, plugin) as channel:
            for _ in range(2):
                with pytest.raises(grpc.RpcError, match="no usable token"):
                    channel.unary_unary(UNARY)(b"x")

    assert not server.seen


def test_call_credentials_serve_asyncio_too(keeper, server):
    async def main():
        credentials = grpc.composite_channel_credentials(
            grpc.local_channel_credentials(), grpc.metadata_call_credentials(KeeperPlugin(keeper))
        )
        async with grpc.aio.secure_channel(server.secure, credentials) as channel:
            return await asyncio.gather(*(channel.unary_unary(UNARY)(b"x") for _ in range(20)))

    assert asyncio.run(main()) == [b"x"] * 20


def test_nothing_shows_the_token(keeper, server, caplog):
    server.refuse_all()
    token = keeper.token
    interceptor, plugin = KeeperInterceptor(keeper), KeeperPlugin(keeper)

    with grpc.insecure_channel(server.insecure) as channel, pytest.raises(grpc.RpcError):
        grpc.intercept_channel(channel, interceptor).unary_unary(UNARY)(b"x")

    shown = repr(interceptor) + repr(plugin) + repr(aio_interceptors(keeper)) + caplog.text
    assert token not in shown
    assert keeper.snapshot.denied_by == ("grpc",)


@pytest.mark.parametrize("make", [KeeperInterceptor, KeeperPlugin, aio_interceptors])
def test_wrong_arguments_are_named(make, keeper):
    with pytest.raises(ConfigError, match="keeper"):
        make("a-token")
    with pytest.raises(ConfigError, match="timeout"):
        make(keeper, timeout=-1)
