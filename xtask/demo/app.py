"""One of the two programs of `cargo xtask demo`, written as any SLIM application is: with the released SDK.

    python app.py NODE bob            waits for a session and answers every message
    python app.py NODE alice          opens an end-to-end encrypted session with Bob and asks
"""

import asyncio
import datetime
import statistics
import sys
import time

import slim_bindings as slim

SECRET = "what alice and bob agreed on long before this demo"
QUESTIONS = 100


def seconds(number):
    return datetime.timedelta(seconds=number)


def say(text):
    print(text, flush=True)


async def join(node, who):
    """Connects to the node and takes a name there."""
    slim.uniffi_set_event_loop(asyncio.get_running_loop())
    slim.initialize_with_defaults()
    service = slim.get_global_service()
    connection = await service.connect_async(slim.new_insecure_client_config(node))
    name = slim.Name("slimline", "demo", who)
    app = service.create_app_with_secret(name, SECRET)
    await app.subscribe_async(name, connection)
    return app


async def bob(node):
    app = await join(node, "bob")
    say("I am slimline/demo/bob and wait for whoever wants to talk to me.")
    session = await app.listen_for_session_async(None)
    answered = 0
    try:
        while True:
            message = await session.get_message_async(None)
            question = message.payload.decode()
            if answered == 0:
                say(f'I hear "{question}" and answer.')
            await session.publish_async(f"you said: {question}".encode(), None, None)
            answered += 1
    except slim.SlimError:
        say(f"The session is closed; I answered {answered} messages.")


async def alice(node):
    app = await join(node, "alice")
    config = slim.SessionConfig(
        session_type=slim.SessionType.POINT_TO_POINT,
        max_retries=5,
        interval=seconds(1),
        metadata={},
        mls_settings=slim.MlsSettings(header_integrity_validation_percent=100, max_seen_control_message_ids_size=None),
    )
    started = time.perf_counter()
    session = await app.create_session_and_wait_async(config, slim.Name("slimline", "demo", "bob"))
    took = 1000 * (time.perf_counter() - started)
    say(f"I am slimline/demo/alice. The node found Bob by his name; our MLS session was up after {took:.0f} ms.")
    times = []
    for number in range(QUESTIONS):
        started = time.perf_counter()
        await session.publish_async(f"hello number {number + 1}".encode(), None, None)
        answer = await session.get_message_async(seconds(10))
        times.append(1000 * (time.perf_counter() - started))
        if number == 0:
            say(f'Bob answers "{answer.payload.decode()}".')
    say(
        f"{QUESTIONS} questions, {QUESTIONS} answers, one after the other: "
        f"{statistics.median(times):.1f} ms each at the median, {max(times):.1f} ms at worst."
    )
    await app.delete_session_and_wait_async(session)


if __name__ == "__main__":
    asyncio.run({"alice": alice, "bob": bob}[sys.argv[2]](sys.argv[1]))
