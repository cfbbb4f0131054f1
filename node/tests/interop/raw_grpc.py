"""What a node does with a hand-made client on a stock gRPC stack (grpcio): the wire rules, and abuse."""

import asyncio
import contextlib
import time

import grpc
from rawlink import EDGE, NULL_ID, OPEN_CHANNEL, REMOTE, Header, Link, Name, decode, encode, open_channel
from slimkit import Skip, case, check, check_equal


def name(bed, word, id=None):
    return Name.parse(f"slimline/interop/{bed.unique(word)}", id)


async def pair(bed, id=7):
    """A publisher, a subscriber, and the name the subscriber holds."""
    publisher, subscriber = await Link.open(bed), await Link.open(bed)
    held = name(bed, "held", id)
    await subscriber.subscribe(held)
    return publisher, subscriber, held


async def still_forwards(publisher, subscriber, held, text=b"still here"):
    await publisher.publish(held, held, text)
    check_equal(await subscriber.payload(), text, "what arrives afterwards")


# ---- negotiation -----------------------------------------------------------------------------------------------------


@case("negotiation: answered with link id, kind, key and version")
async def negotiation(bed):
    link = await Link.open(bed)
    check(link.reply[2].decode().count(".") == 2, f"version {link.reply[2]!r} is no semver")
    check(link.reply.get(6), "the node does not name itself")


@case("negotiation: hybrid with ML-KEM-768 when the dialler offers it")
async def hybrid(bed):
    publisher, subscriber = await Link.open(bed, hybrid=True), await Link.open(bed)
    held = name(bed, "held", 1)
    await subscriber.subscribe(held)
    await still_forwards(publisher, subscriber, held)


@case("negotiation: an old version and every connection type are accepted")
async def tolerant(bed):
    await Link.open(bed, version="0.1.0")
    for kind in (REMOTE, EDGE):
        await Link.open(bed, connection_type=kind)


@case("negotiation: a second offer on an established link is ignored")
async def second_offer(bed):
    publisher, subscriber, held = await pair(bed)
    await subscriber.send_offer()
    await subscriber.hears_nothing("an answer")
    await still_forwards(publisher, subscriber, held)


def refused(title, **offer):
    @case(f"negotiation: refused: {title}")
    async def run(bed):
        link = await Link.open_stream(bed)
        await link.send_offer(**offer)
        await link.end()


refused("an empty link id", link_id="")
refused("a reply in place of an offer", is_reply=1)
refused("a version that is none", version="three")
LENIENT = "the node embedded in the SDK accepts links without a key"


def refused_when_strict(title, **offer):
    @case(f"negotiation: refused: {title}")
    async def run(bed):
        if bed.node.kind == "embedded":
            raise Skip(LENIENT)
        link = await Link.open_stream(bed)
        await link.send_offer(**offer)
        await link.end()


refused_when_strict("no key", public=b"")
refused_when_strict("a key of 31 octets", public=b"\1" * 31)
refused_when_strict("a low-order point", public=bytes(32))


@case("negotiation: a stream that says nothing ends after some 5 s")
async def silence(bed):
    started = time.monotonic()
    link = await Link.open_stream(bed)
    await link.end(patience=15)
    took = time.monotonic() - started
    bed.measure("until the end", [1000 * took])
    check(3 < took < 10, f"ended after {took:.1f} s")


@case("negotiation: a stream that begins with a Subscribe ends")
async def no_negotiation(bed):
    link = await Link.open_stream(bed)
    await link.request(name(bed, "early", 1), mac=None)
    await link.end()


# ---- subscriptions ---------------------------------------------------------------------------------------------------


@case("subscribe: acknowledged with its id, again when repeated; id 0 is not")
async def acks(bed):
    link = await Link.open(bed)
    held = name(bed, "held", 3)
    big = (1 << 64) - 2
    await link.subscribe(held, big)
    await link.subscribe(held, big)
    await link.request(held, 0)
    await link.hears_nothing("an ack")


@case("subscribe: two ids for a name; the route goes with the second")
async def reference_count(bed):
    publisher, subscriber, held = await pair(bed)
    await subscriber.subscribe(held, 1001)
    check_equal(await subscriber.unsubscribe(held, 1001), (True, ""), "first unsubscribe")
    await still_forwards(publisher, subscriber, held)
    check_equal(await subscriber.unsubscribe(held, 1), (True, ""), "second unsubscribe")
    await publisher.publish(held, held, b"to nobody")
    await subscriber.hears_nothing()


@case("unsubscribe: the three texts of refusal")
async def refusal_texts(bed):
    link = await Link.open(bed)
    held = name(bed, "held", 5)
    check_equal(await link.unsubscribe(held, 9), (False, "subscription not found"), "prefix unknown")
    await link.subscribe(held, 1)
    other = Name(held.text, 6)
    uuid_text = "00000000-0000-0000-0000-000000000006"
    check_equal(await link.unsubscribe(other, 10), (False, f"id not found: {uuid_text}"), "id unknown")
    any_text = "id not found: NULL_COMPONENT"
    check_equal(await link.unsubscribe(held.anyone(), 11), (False, any_text), "NULL id unknown")
    check_equal(await link.unsubscribe(held, 12), (False, "subscription id not found: 12"), "subscription unknown")


@case("unsubscribe: an unknown id takes the record with id 0", ours_only="the reference refuses it")
async def lenient_unsubscribe(bed):
    publisher, subscriber = await Link.open(bed), await Link.open(bed)
    held = name(bed, "held", 5)
    await subscriber.request(held, 0)
    await subscriber.subscribe(name(bed, "barrier", 1))
    await still_forwards(publisher, subscriber, held)
    check_equal(await subscriber.unsubscribe(held, 77), (True, ""), "unsubscribe after a replay")
    await publisher.publish(held, held, b"to nobody")
    await subscriber.hears_nothing()


@case("subscribe: a publish right behind it on another link is delivered once acknowledged")
async def ack_truth(bed):
    publisher, subscriber = await Link.open(bed), await Link.open(bed)
    for round in range(50):
        held = name(bed, f"held{round}", round)
        await subscriber.subscribe(held)
        await publisher.publish(held, held, b"%d" % round)
        check_equal(await subscriber.payload(), b"%d" % round, "payload")


@case("subscribe: 1000 in one go are all acknowledged")
async def many_subscribes(bed):
    link = await Link.open(bed)
    names = [name(bed, f"many{number}", number) for number in range(1000)]
    for number, held in enumerate(names, 1):
        await link.request(held, number)
    acked = set()
    while len(acked) < len(names):
        ack = decode(decode(await link.next_octets())[6])
        check(ack.get(2), f"refused: {ack}")
        acked.add(ack[1])


# ---- publishes -------------------------------------------------------------------------------------------------------


@case("publish: ids match exactly, NULL matches every id, nothing returns to the sender")
async def matching(bed):
    publisher, seven, eight, anyone = [await Link.open(bed) for _ in range(4)]
    base = name(bed, "held")
    await seven.subscribe(Name(base.text, 7))
    await eight.subscribe(Name(base.text, 8))
    await anyone.subscribe(Name(base.text, NULL_ID))
    await publisher.publish(base, Name(base.text, 7), b"for seven", fanout=2)
    check_equal(await seven.payload(), b"for seven", "at 7")
    await eight.hears_nothing()
    await anyone.hears_nothing()
    await publisher.publish(base, Name(base.text, NULL_ID), b"for all", fanout=2)
    for link in (seven, eight, anyone):
        check_equal(await link.payload(), b"for all", "at everyone")
    await publisher.publish(base, base, b"no id at all", fanout=0)
    for link in (seven, eight, anyone):
        check_equal(await link.payload(), b"no id at all", "at everyone")
    await seven.publish(base, Name(base.text, 7), b"to myself")
    await seven.hears_nothing("its own message")


@case("publish: fanout 1 goes round, 0, 2 and 256 reach all")
async def fanout(bed):
    publisher = await Link.open(bed)
    held = name(bed, "held", 4)
    links = [await Link.open(bed) for _ in range(3)]
    for link in links:
        await link.subscribe(held)
    for number in range(6):
        await publisher.publish(held, held, b"%d" % number)
    for link in links:
        first, second = int(await link.payload()), int(await link.payload())
        check_equal(second - first, 3, "distance between two turns of one receiver")
    for many in (0, 2, 256):
        await publisher.publish(held, held, b"all %d" % many, fanout=many)
        for link in links:
            check_equal(await link.payload(), b"all %d" % many, f"with fanout {many}")


@case("publish: what a hop changes and what it leaves")
async def one_hop(bed):
    publisher, subscriber, held = await pair(bed)
    metadata = encode((1, "key"), (2, "value"))
    source = name(bed, "source", 99)
    await publisher.publish(source, held, b"payload", metadata=metadata, fanout=1, incoming_conn=3, error=True)
    sent = decode(decode(publisher.publish_octets(source, held, b"payload", incoming_conn=3, error=True))[3])
    got = await subscriber.receive()
    ours = decode(sent[1])
    check_equal(got.header[6], 7, "ttl")
    for number, what in ((1, "source"), (2, "destination"), (3, "identity"), (4, "fanout"), (5, "version"), (10, "error")):
        check_equal(got.header.get(number), ours.get(number), what)
    check_equal(got.session, sent[2], "session header")
    check_equal(got.content, sent[3], "content")
    check_equal(got.metadata, metadata, "metadata")
    check(7 not in got.header and 8 not in got.header, "recv_from or forward_to left the node")


@case("publish: ttl 2 passes, 1 and 0 are dropped")
async def ttl(bed):
    publisher, subscriber, held = await pair(bed)
    for ttl in (0, 1):
        await publisher.publish(held, held, b"too old", ttl=ttl)
    await publisher.publish(held, held, b"just in time", ttl=2)
    got = await subscriber.receive()
    check_equal(got.header[6], 1, "ttl")
    check(b"just in time" in got.content, "an expired message arrived")


@case("publish: without text, without id, without content")
async def sparse(bed):
    publisher, subscriber, held = await pair(bed, id=None)
    silent = Name(held.text, None, with_text=False)
    await publisher.publish(silent, silent, b"no text")
    check_equal(await subscriber.payload(), b"no text", "without text")
    bare = encode((3, encode((1, publisher.signed(Header(held, held))), (2, encode((1, 1))))))
    await publisher.send(bare)
    check_equal((await subscriber.receive()).content, b"", "without content")


@case("publish: a name nobody holds costs nothing")
async def no_route(bed):
    publisher, subscriber, held = await pair(bed)
    for number in range(20):
        await publisher.publish(held, name(bed, f"nobody{number}", 1), b"lost")
    await still_forwards(publisher, subscriber, held)
    await publisher.hears_nothing("an answer")


@case("publish: 1 Mi and 3.9 Mi octets; small ones in between keep their order", seconds=90)
async def large(bed):
    publisher, subscriber, held = await pair(bed)
    sizes = (1 << 20, 10, 3900 << 10, 10, 100_000)
    sending = asyncio.ensure_future(send_all(publisher, held, sizes))
    for size in sizes:
        check_equal(len(await subscriber.payload(20)), size, "octets")
    await sending


async def send_all(publisher, held, sizes):
    for size in sizes:
        await publisher.publish(held, held, bytes(size))


@case("publish: 20 senders × 200 messages to one receiver, each in order", seconds=120)
async def ordered(bed):
    receiver = await Link.open(bed)
    held = name(bed, "held", 1)
    await receiver.subscribe(held)
    senders = [await Link.open(bed) for _ in range(20)]

    async def send(index, link):
        for number in range(200):
            await link.publish(held, held, b"%d %d" % (index, number))

    sending = asyncio.gather(*(send(index, link) for index, link in enumerate(senders)))
    expected = [0] * len(senders)
    for _ in range(20 * 200):
        index, number = map(int, (await receiver.payload(20)).split())
        check_equal(number, expected[index], f"number from sender {index}")
        expected[index] += 1
    await sending


# ---- header MAC ------------------------------------------------------------------------------------------------------


@case("MAC: a wrong or missing one is dropped without a word, the link lives on")
async def bad_mac(bed):
    publisher, subscriber, held = await pair(bed)
    await publisher.publish(held, held, b"forged", mac=bytes(32))
    await publisher.publish(held, held, b"short", mac=bytes(31))
    await publisher.publish(held, held, b"bare", mac=None)
    await publisher.request(name(bed, "forged", 1), 500, mac=bytes(32))
    await subscriber.hears_nothing("a forged message")
    await publisher.hears_nothing("an answer")
    await still_forwards(publisher, subscriber, held)


@case("MAC: covers recv_from and forward_to, which steer nothing", ours_only="the reference obeys them from the wire")
async def steering(bed):
    publisher, subscriber, held = await pair(bed)
    victims = [await Link.open(bed) for _ in range(3)]
    taken = name(bed, "taken", 1)
    for connection in range(12):
        await publisher.publish(held, name(bed, "nobody", 1), b"injected", forward_to=connection)
        await publisher.request(taken, 900 + connection, recv_from=connection)
    for connection in range(12):
        success, error = await publisher.ack(900 + connection)
        check(success, f"refused: {error}")
    await publisher.publish(held, taken, b"hijacked", fanout=0)
    for victim in [subscriber, *victims]:
        await victim.hears_nothing("an injected message")
    await publisher.publish(held, held, b"with forward_to", forward_to=1)
    got = await subscriber.receive()
    check(7 not in got.header and 8 not in got.header, "recv_from or forward_to left the node")


# ---- abuse -----------------------------------------------------------------------------------------------------------


@case("abuse: an empty message does not mute the link", ours_only="it panics the reference's reader")
async def empty_message(bed):
    publisher, subscriber, held = await pair(bed)
    await publisher.send(b"")
    await subscriber.send(b"")
    await still_forwards(publisher, subscriber, held)


@case("abuse: a Subscribe without text works or is ignored", ours_only="it panics the reference's reader")
async def no_text(bed):
    publisher, subscriber, held = await pair(bed)
    await subscriber.request(Name(name(bed, "silent").text, 1, with_text=False), 50)
    await still_forwards(publisher, subscriber, held)
    await subscriber.subscribe(name(bed, "more", 1), 51)


def harmless(title, octets):
    @case(f"abuse: {title} does not mute the link", ours_only="the reference ends the stream or its reader")
    async def run(bed):
        publisher, subscriber, held = await pair(bed)
        await publisher.send(octets(publisher, held) if callable(octets) else octets)
        await still_forwards(publisher, subscriber, held)


harmless("garbage", b"\xff" * 100)
harmless("an unterminated varint", b"\x1a" + b"\x80" * 20)
harmless("a length beyond the message", b"\x1a\x7f\x0a")
harmless("a Publish without header", encode((3, encode((2, b"")))))
harmless("a Publish without destination", lambda link, held: encode((3, encode((1, link.signed(Header(held, None))), (2, b"")))))
harmless("a Publish without session", lambda link, held: encode((3, encode((1, link.signed(Header(held, held)))))))
harmless("a Link without payload", encode((5, b"")))
harmless("a SubscriptionAck nobody asked for", encode((6, encode((1, 12345), (2, 1)))))
harmless("an unknown field alone", encode((99, b"what is this")))
harmless("a message over 4 Mi octets", lambda link, held: link.publish_octets(held, held, bytes((4 << 20) + 10)))


@case("abuse: garbage costs its sender at most its own stream")
async def garbage(bed):
    publisher, subscriber, held = await pair(bed)
    other = await Link.open(bed)
    await other.send(b"\xff" * 100)
    await still_forwards(publisher, subscriber, held)
    await Link.open(bed)


@case("abuse: a compressed message is refused with a status")
async def compressed(bed):
    channel = grpc.aio.insecure_channel(bed.node.address, compression=grpc.Compression.Gzip)
    bed.defer(channel.close)
    link = await Link.open_stream(bed, channel)
    with contextlib.suppress(asyncio.InvalidStateError):  # it may be refused for its headers already
        await link.send(bytes(10_000))
    code = await link.end()
    check(code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED), f"ended with {code}")
    await Link.open(bed)


@case("gRPC: unknown methods and services are UNIMPLEMENTED")
async def unimplemented(bed):
    channel = open_channel(bed.node.address)
    bed.defer(channel.close)
    for path in (OPEN_CHANNEL + "s", "/dataplane.proto.v1.Other/OpenChannel", "/x"):
        try:
            await channel.unary_unary(path)(b"", timeout=5)
            check(False, f"{path} was answered")
        except grpc.aio.AioRpcError as error:
            check_equal(error.code(), grpc.StatusCode.UNIMPLEMENTED, f"status of {path}")
    await Link.open(bed, channel)


@case("gRPC: two streams on one HTTP/2 connection receive from each other; one may end")
async def two_streams(bed):
    channel = open_channel(bed.node.address)
    bed.defer(channel.close)
    one, two = await Link.open(bed, channel), await Link.open(bed, channel)
    held = name(bed, "held", 2)
    await one.subscribe(held)
    await still_forwards(two, one, held)
    await two.subscribe(held)
    await still_forwards(one, two, held)
    check_equal(await two.close(), grpc.StatusCode.OK, "status of a stream its client closed")
    three = await Link.open(bed, channel)
    await still_forwards(three, one, held)


@case("gRPC: 150 streams one after the other on one HTTP/2 connection, and 150 calls of an unknown method")
async def one_after_the_other(bed):
    channel = open_channel(bed.node.address)
    bed.defer(channel.close)
    for _ in range(150):
        link = await Link.open(bed, channel)
        check_equal(await link.close(), grpc.StatusCode.OK, "status of a stream its client closed")
    for number in range(150):
        try:
            await channel.unary_unary("/no/thing")(b"", timeout=5)
        except grpc.aio.AioRpcError as error:
            check_equal(error.code(), grpc.StatusCode.UNIMPLEMENTED, f"status of call {number}")


@case("gRPC: 50 streams on one HTTP/2 connection")
async def fifty_streams(bed):
    channel = open_channel(bed.node.address)
    bed.defer(channel.close)
    links = [await Link.open(bed, channel) for _ in range(50)]
    held = name(bed, "held", 2)
    for link in links:
        await link.subscribe(held)
    await links[0].publish(held, held, b"to 49", fanout=256)
    for link in links[1:]:
        check_equal(await link.payload(), b"to 49", "payload")
    await links[0].hears_nothing("its own message")


@case("gRPC: a stream its client cancels takes its routes along")
async def cancelled(bed):
    publisher, subscriber, held = await pair(bed)
    other = await Link.open(bed)
    await other.subscribe(held)
    subscriber.call.cancel()
    await asyncio.sleep(0.2)
    for number in range(4):
        await publisher.publish(held, held, b"%d" % number)
        check_equal(await other.payload(), b"%d" % number, "payload")


@case("gRPC: 200 links come and go; the node forgets them", seconds=90)
async def churn(bed):
    publisher, subscriber, held = await pair(bed)
    for number in range(200):
        channel = open_channel(bed.node.address)
        link = await Link.open(bed, channel)
        await link.subscribe(held)
        await channel.close()
    await asyncio.sleep(0.3)
    await publisher.publish(held, held, b"for the one who stayed", fanout=0)
    check_equal(await subscriber.payload(), b"for the one who stayed", "payload")
    for number in range(3):
        await still_forwards(publisher, subscriber, held, b"%d" % number)


@case("a reader that stops does not hold up others", seconds=60, ours_only="the reference blocks the publisher")
async def slow_reader(bed):
    publisher, subscriber, held = await pair(bed)
    other, sleeper = await Link.open(bed), await Link.open(bed)
    asleep = name(bed, "asleep", 1)
    await sleeper.subscribe(asleep)

    async def flood():
        for _ in range(300):
            await other.publish(asleep, asleep, bytes(1 << 16))

    flooding = asyncio.ensure_future(flood())  # 20 MB that nobody reads
    for number in range(100):
        await still_forwards(publisher, subscriber, held, b"%d" % number)
        await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        await flooding
    await still_forwards(other, subscriber, held, b"the flooder is heard too")


@case("a request and its answer, 100 times")
async def round_trips(bed):
    ask, answer, held = await pair(bed)
    back = name(bed, "back", 1)
    await ask.subscribe(back)
    times = []
    for _ in range(100):
        started = time.perf_counter()
        await ask.publish(back, held, b"?")
        await answer.receive()
        await answer.publish(held, back, b"!")
        await ask.receive()
        times.append(1000 * (time.perf_counter() - started))
    bed.measure("round trip", times)
