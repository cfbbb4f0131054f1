"""SLIM RPC as released: calls between unmodified SDK apps, one to one and one to many."""

import asyncio
import time

import slim_bindings as slim
from slimkit import case, check, check_equal, seconds

SERVICE = "interop.Echo"


class Upper(slim.UnaryUnaryHandler):
    async def handle(self, request, context):
        return request.upper()


class Refuse(slim.UnaryUnaryHandler):
    async def handle(self, request, context):
        raise slim.RpcError.Rpc(slim.RpcCode.PERMISSION_DENIED, "not you", None)


class Count(slim.UnaryStreamHandler):
    """Answers with as many messages as the request says."""

    async def handle(self, request, context, sink):
        for number in range(int(request)):
            await sink.send_async(b"%d" % number)
        await sink.close_async()


class Mirror(slim.StreamStreamHandler):
    async def handle(self, stream, context, sink):
        while True:
            message = await stream.next_async()
            if not message.is_data():
                break
            await sink.send_async(message[0])
        await sink.close_async()


async def serve(bed, word):
    """An app that answers calls until the case is over."""
    app = await bed.app(word)
    server = slim.Server.new_with_connection(app.app, app.name, app.connection)
    server.register_unary_unary(SERVICE, "Upper", Upper())
    server.register_unary_unary(SERVICE, "Refuse", Refuse())
    server.register_unary_stream(SERVICE, "Count", Count())
    server.register_stream_stream(SERVICE, "Mirror", Mirror())
    serving = asyncio.ensure_future(server.serve_async())
    bed.defer(serving.cancel)
    bed.defer(server.shutdown_async)
    await asyncio.sleep(0.2)  # its method names are being subscribed
    return app


async def channel(bed, *servers):
    caller = await bed.app("caller")
    if len(servers) == 1:
        made = slim.Channel.new_with_connection(caller.app, servers[0].name, caller.connection)
    else:
        made = slim.Channel.new_group_with_connection(caller.app, [app.name for app in servers], caller.connection)
    bed.defer(made.close_async, seconds(5))
    return made


@case("unary: 50 calls, and a large one")
async def unary(bed):
    calls = await channel(bed, await serve(bed, "server"))
    times = []
    for number in range(50):
        started = time.perf_counter()
        answer = await calls.call_unary_async(SERVICE, "Upper", b"call %d" % number, seconds(10), None)
        times.append(1000 * (time.perf_counter() - started))
        check_equal(answer, b"CALL %d" % number, "answer")
    bed.measure("call", times)
    large = b"x" * 500_000
    check_equal(await calls.call_unary_async(SERVICE, "Upper", large, seconds(10), None), large.upper(), "large answer")


@case("unary: the server's refusal reaches the caller")
async def errors(bed):
    calls = await channel(bed, await serve(bed, "server"))
    try:
        await calls.call_unary_async(SERVICE, "Refuse", b"", seconds(10), None)
        check(False, "answered")
    except slim.RpcError.Rpc as error:
        check_equal((error.code, error.message), (slim.RpcCode.PERMISSION_DENIED, "not you"), "error")


@case("server streaming: 100 messages in order")
async def server_stream(bed):
    calls = await channel(bed, await serve(bed, "server"))
    reader = await calls.call_unary_stream_async(SERVICE, "Count", b"100", seconds(20), None)
    for number in range(100):
        message = await reader.next_async()
        check(message.is_data(), f"{message} in place of message {number}")
        check_equal(message[0], b"%d" % number, "message")


@case("both ways streaming: 50 messages come back in order")
async def both_ways(bed):
    calls = await channel(bed, await serve(bed, "server"))
    stream = calls.call_stream_stream(SERVICE, "Mirror", seconds(20), None)
    for number in range(50):
        await stream.send_async(b"%d" % number)
    await stream.close_send_async()
    for number in range(50):
        message = await stream.recv_async()
        check(message.is_data(), f"{message} in place of message {number}")
        check_equal(message[0], b"%d" % number, "message")


@case("multicast unary: three servers answer one call")
async def multicast(bed):
    servers = [await serve(bed, word) for word in ("one", "two", "three")]
    calls = await channel(bed, *servers)
    reader = await calls.call_multicast_unary_async(SERVICE, "Upper", b"all", seconds(20), None)
    sources = set()
    while len(sources) < len(servers):
        message = await reader.next_async()
        check(message.is_data(), f"{message} in place of an answer")
        item = message[0] if isinstance(message, tuple) else message.item
        check_equal(item.message, b"ALL", "answer")
        sources.add(str(item.context.source))
