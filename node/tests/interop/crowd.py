"""Many unmodified SDK apps at once: what is lost, mixed up or starved shows in numbers."""

import asyncio

import slim_bindings as slim
from slimkit import case, check_equal, expect, seconds, session_config, talk


@case("20 pairs at once, 100 questions and answers each", seconds=180)
async def pairs(bed):
    async def pair(index):
        ours, theirs = await talk(*[await bed.app(f"{who}{index}") for who in ("ask", "answer")], mls=index % 2 == 0)
        for round in range(100):
            text = b"pair %d round %d" % (index, round)
            await ours.publish_async(text, None, None)
            await expect(theirs, text)
            await theirs.publish_async(text, None, None)
            await expect(ours, text)

    await asyncio.gather(*(pair(index) for index in range(20)))


@case("one app serves 20 callers", seconds=180)
async def one_server(bed):
    server = await bed.app("server")

    async def answer(session):
        for _ in range(20):
            message = await session.get_message_async(seconds(30))
            await session.publish_async(message.payload.upper(), None, None)

    async def listen():
        answering = [asyncio.ensure_future(answer(await server.app.listen_for_session_async(seconds(60)))) for _ in range(20)]
        await asyncio.gather(*answering)

    async def call(index):
        caller = await bed.app(f"caller{index}")
        session = await caller.app.create_session_and_wait_async(session_config(mls=False), server.name)
        for round in range(20):
            text = b"caller %d round %d" % (index, round)
            await session.publish_async(text, None, None)
            await expect(session, text.upper())

    await asyncio.gather(listen(), *(call(index) for index in range(20)))


@case("a group of ten: everybody says ten things, everybody hears ninety", seconds=180)
async def large_group(bed):
    apps = [await bed.app(f"member{index}") for index in range(10)]
    channel = slim.Name("slimline", "interop", bed.unique("channel"))
    ends = [await apps[0].app.create_session_and_wait_async(session_config("GROUP"), channel)]
    for invited in apps[1:]:
        heard = asyncio.create_task(invited.app.listen_for_session_async(seconds(20)))
        await ends[0].invite_and_wait_async(invited.name)
        ends.append(await heard)

    async def speak(index, end):
        for round in range(10):
            await end.publish_async(b"%d %d" % (index, round), None, None)

    async def hear(index, end):
        heard = {}
        for _ in range(10 * (len(ends) - 1)):
            speaker, round = map(int, (await end.get_message_async(seconds(30))).payload.split())
            check_equal(round, heard.get(speaker, 0), f"what {index} hears of {speaker}")
            heard[speaker] = round + 1

    await asyncio.gather(*(act(index, end) for index, end in enumerate(ends) for act in (speak, hear)))
    await apps[0].app.delete_session_and_wait_async(ends[0])


@case("100 apps come, hold a name, and go", seconds=120)
async def come_and_go(bed):
    watcher = await bed.app("watcher")
    for wave in range(5):
        visitors = await asyncio.gather(*(bed.app(f"visitor{wave}-{index}") for index in range(20)))
        ours, theirs = await talk(watcher, visitors[0], mls=False)
        await ours.publish_async(b"welcome", None, None)
        await expect(theirs, b"welcome")
        for visitor in visitors:
            visitor.service.disconnect(visitor.connection)
