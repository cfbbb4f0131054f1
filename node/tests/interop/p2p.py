"""Two unmodified SDK apps in point-to-point sessions."""

import asyncio
import time

import slim_bindings as slim
from slimkit import case, check, check_equal, expect, session_config, talk


async def echo(ours, theirs, rounds, payload):
    """Sends `payload` there and back; milliseconds of each round."""
    times = []
    for number in range(rounds):
        sent = payload + number.to_bytes(4, "big")
        started = time.perf_counter()
        await ours.publish_async(sent, None, None)
        await expect(theirs, sent, "request")
        await theirs.publish_async(sent, None, None)
        await expect(ours, sent, "reply")
        times.append(1000 * (time.perf_counter() - started))
    return times


def echo_case(mls, reliable):
    words = f"{'with' if mls else 'without'} MLS, {'reliable' if reliable else 'unreliable'}"

    @case(f"session, 20 echoes, close; {words}")
    async def run(bed):
        alice, bob = await bed.app("alice"), await bed.app("bob")
        started = time.perf_counter()
        ours, theirs = await talk(alice, bob, mls=mls, reliable=reliable)
        bed.measure("session", [1000 * (time.perf_counter() - started)])
        bed.measure("echo", await echo(ours, theirs, 20, b"x" * 60))
        await alice.app.delete_session_and_wait_async(ours)
        await ended(theirs)


async def ended(session):
    """Waits until the peer's close has reached this end."""
    try:
        await session.get_message_async(None)
    except Exception as error:
        check("closed" in str(error), f"unexpected end of session: {error}")
    else:
        check(False, "a message arrived in place of the close")


for _mls in (True, False):
    for _reliable in (True, False):
        echo_case(_mls, _reliable)


@case("200 messages one way arrive in order")
async def in_order(bed):
    alice, bob = await bed.app("alice"), await bed.app("bob")
    ours, theirs = await talk(alice, bob, mls=False)
    handles = [await ours.publish_async(b"%d" % number, None, None) for number in range(200)]
    for number in range(200):
        await expect(theirs, b"%d" % number)
    for handle in handles:
        await handle.wait_async()


@case("session and message metadata and the payload type arrive")
async def metadata(bed):
    alice, bob = await bed.app("alice"), await bed.app("bob")
    ours, theirs = await talk(alice, bob, metadata={"purpose": "interop"})
    check_equal(theirs.metadata().get("purpose"), "interop", "session metadata")
    await ours.publish_async(b"{}", "application/json", {"k": "v"})
    message = await expect(theirs, b"{}")
    check_equal(message.context.payload_type, "application/json", "payload type")
    check_equal(message.context.metadata.get("k"), "v", "message metadata")


@case("payloads of 0, 1, 16 Ki, 1 Mi and 3.9 Mi octets, without MLS", seconds=120)
async def large(bed):
    await sizes(bed, (0, 1, 16 << 10, 1 << 20, 3900 << 10), mls=False)


@case("payloads of 0, 1, 16 Ki and 1 Mi octets, with MLS", seconds=120)
async def large_mls(bed):
    await sizes(bed, (0, 1, 16 << 10, 1 << 20), mls=True)


async def sizes(bed, octet_counts, mls):
    alice, bob = await bed.app("alice"), await bed.app("bob")
    ours, theirs = await talk(alice, bob, mls=mls)
    for octets in octet_counts:
        payload = bytes(octets)
        started = time.perf_counter()
        handle = await ours.publish_async(payload, None, None)
        await expect(theirs, payload, f"payload of {octets} octets")
        bed.measure(f"{octets} octets", [1000 * (time.perf_counter() - started)])
        await handle.wait_async()


@case("ten sessions between the same two apps do not mix")
async def several(bed):
    alice, bob = await bed.app("alice"), await bed.app("bob")
    pairs = [await talk(alice, bob, mls=number % 2 == 0) for number in range(10)]

    async def one(number, ours, theirs):
        for round in range(10):
            text = b"session %d round %d" % (number, round)
            await ours.publish_async(text, None, None)
            await expect(theirs, text)
            await theirs.publish_async(text, None, None)
            await expect(ours, text)

    await asyncio.gather(*(one(number, *pair) for number, pair in enumerate(pairs)))
    for ours, _ in pairs:
        await alice.app.delete_session_and_wait_async(ours)


@case("the responder leaves; the initiator's session ends")
async def responder_leaves(bed):
    alice, bob = await bed.app("alice"), await bed.app("bob")
    ours, theirs = await talk(alice, bob)
    await ours.publish_async(b"hello", None, None)
    await expect(theirs, b"hello")
    await bob.app.delete_session_and_wait_async(theirs)
    try:
        while True:
            await ours.get_message_async(None)
    except Exception as error:
        text = str(error)
    check("disconnect" in text or "closed" in text, f"unexpected end of session: {text}")


@case("a session to a name nobody holds fails and says so", seconds=90)
async def nobody(bed):
    alice = await bed.app("alice")
    config = session_config(mls=False)
    config.max_retries = 2
    try:
        await alice.app.create_session_and_wait_async(config, slim.Name("slimline", "interop", bed.unique("nobody")))
    except Exception:
        return
    check(False, "the session was established with nobody")


@case("after unsubscribe the app is no longer found")
async def unsubscribe(bed):
    alice, bob = await bed.app("alice"), await bed.app("bob")
    await bob.app.unsubscribe_async(bob.app.name(), bob.connection)
    config = session_config(mls=False)
    config.max_retries = 1
    try:
        await alice.app.create_session_and_wait_async(config, bob.name)
    except Exception:
        return
    check(False, "the session was established with an app that had unsubscribed")
