"""The node goes away and comes back; unmodified SDK apps find it again (they dial every 2 s)."""

import asyncio
import signal
import time

import slim_bindings as slim
from slimkit import Failure, case, check, check_equal, expect, seconds, talk


async def echo_until_heard(ours, theirs, text, patience=15):
    """Says `text` until it is heard: what is said into a connection that is down may be lost."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        await ours.publish_async(text, None, None)
        try:
            while (await theirs.get_message_async(seconds(3))).payload != text:
                pass
            return
        except slim.SlimError as error:
            check("timeout" in str(error), f"unexpected: {error}")
    check(False, f"{text!r} was not heard within {patience} s")


@case("a P2P session goes on after the node was stopped and started", seconds=90, restarts=True)
async def survives_stop(bed):
    await survives(bed, signal.SIGTERM)


@case("a P2P session goes on after the node was killed and started", seconds=120, restarts=True)
async def survives_kill(bed):
    # An SDK that sees its connection break dials at once; if that meets the listener of the dying process, TCP comes up
    # and breaks again, and then the SDK gives up for good. No node can help it, so the case has three tries.
    for attempt in (1, 2, 3):
        try:
            return await survives(bed, signal.SIGKILL, attempt)
        except Failure:
            if attempt == 3:
                raise


async def survives(bed, how, attempt=1):
    alice, bob = await bed.app(f"alice{attempt}"), await bed.app(f"bob{attempt}")
    ours, theirs = await talk(alice, bob)
    await ours.publish_async(b"before", None, None)
    await expect(theirs, b"before")
    status = await asyncio.to_thread(bed.node.stop, how)
    if how == signal.SIGTERM:
        check_equal(status, 0 if bed.node.kind != "embedded" else -signal.SIGTERM, "exit status of the node")
    bed.node.start()
    started = time.perf_counter()
    await asyncio.sleep(2.5)  # both ends dial within 2 s
    await echo_until_heard(ours, theirs, b"after")
    await echo_until_heard(theirs, ours, b"and back")
    bed.measure("from start to answer", [1000 * (time.perf_counter() - started)])


@case("a new session after a restart: names are known again", seconds=90, restarts=True)
async def new_session(bed):
    alice, bob = await bed.app("alice"), await bed.app("bob")
    await asyncio.to_thread(bed.node.stop)
    bed.node.start()
    await asyncio.sleep(3)
    ours, theirs = await talk(alice, bob)
    await ours.publish_async(b"hello", None, None)
    await expect(theirs, b"hello")


ID_0 = "the reference refuses it, because the replayed subscription has id 0"


@case("unsubscribe after a restart is acknowledged", restarts=True, ours_only=ID_0)
async def unsubscribe_after_restart(bed):
    bob = await bed.app("bob")
    await asyncio.to_thread(bed.node.stop)
    bed.node.start()
    await asyncio.sleep(3)
    await bob.app.unsubscribe_async(bob.app.name(), bob.connection)


@case("three restarts in a row", seconds=120, restarts=True)
async def three_times(bed):
    alice, bob = await bed.app("alice"), await bed.app("bob")
    ours, theirs = await talk(alice, bob)
    for round in range(3):
        await asyncio.to_thread(bed.node.stop)
        bed.node.start()
        await asyncio.sleep(2.5)
        await echo_until_heard(ours, theirs, b"round %d" % round)


@case("the node stops within 3 s while apps are connected", seconds=60, restarts=True)
async def stops_soon(bed):
    alice, bob = await bed.app("alice"), await bed.app("bob")
    ours, theirs = await talk(alice, bob)
    await ours.publish_async(b"hello", None, None)
    await expect(theirs, b"hello")
    started = time.perf_counter()
    await asyncio.to_thread(bed.node.stop)
    took = time.perf_counter() - started
    bed.node.start()
    bed.measure("stop", [1000 * took])
    check(took < 3, f"it took {took:.1f} s")
