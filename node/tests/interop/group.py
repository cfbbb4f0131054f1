"""Three unmodified SDK apps in a group: a moderator and two it invites."""

import asyncio

import slim_bindings as slim
from slimkit import case, check, check_equal, expect, seconds, session_config


class Group:
    """A group session of a moderator, Ann, and of Ben and Cat."""

    @classmethod
    async def form(cls, bed, apps=None, channel="channel", **config):
        group = cls()
        group.ann, group.ben, group.cat = apps or [await bed.app(word) for word in ("ann", "ben", "cat")]
        channel = slim.Name("slimline", "interop", bed.unique(channel))
        group.moderator = await group.ann.app.create_session_and_wait_async(session_config("GROUP", **config), channel)
        group.members = []
        for invited in (group.ben, group.cat):
            heard = asyncio.create_task(invited.app.listen_for_session_async(seconds(20)))
            await group.moderator.invite_and_wait_async(invited.name)
            group.members.append(await heard)
        return group

    @property
    def ends(self):
        return [self.moderator, *self.members]


async def all_hear(speaker, listeners, text):
    await speaker.publish_async(text, None, None)
    return [await expect(listener, text) for listener in listeners]


async def is_over(session):
    """Waits for the end of a session, over what may still be queued before it."""
    try:
        while True:
            await session.get_message_async(None)
    except Exception as error:
        check("closed" in str(error), f"unexpected end of session: {error}")


def whole_life(mls, reliable):
    words = f"{'with' if mls else 'without'} MLS, {'reliable' if reliable else 'unreliable'}"

    @case(f"invite two, everybody speaks, close; {words}")
    async def run(bed):
        group = await Group.form(bed, mls=mls, reliable=reliable)
        names = {str(participant.name) for participant in await group.moderator.participants_list_async()}
        check_equal(len(names), 3, "participants as the moderator lists them")
        for round in range(5):
            for index, speaker in enumerate(group.ends):
                listeners = [end for end in group.ends if end is not speaker]
                await all_hear(speaker, listeners, b"round %d from %d" % (round, index))
        await group.ann.app.delete_session_and_wait_async(group.moderator)
        for member in group.members:
            await is_over(member)


for _mls in (True, False):
    for _reliable in (True, False):
        whole_life(_mls, _reliable)


@case("publish_to reaches the sender alone")
async def publish_to(bed):
    group = await Group.form(bed)
    ben, cat = group.members
    heard, _ = await all_hear(group.moderator, group.members, b"who is there")
    await ben.publish_to_and_wait_async(heard.context, b"ben is", None, None)
    await expect(group.moderator, b"ben is")
    await all_hear(group.moderator, [ben, cat], b"thanks")  # the next thing Cat hears: no copy of Ben's answer


@case("a removed member hears no more, the others go on")
async def remove(bed):
    group = await Group.form(bed)
    ben, cat = group.members
    await all_hear(ben, [group.moderator, cat], b"before")
    await group.moderator.remove_and_wait_async(group.ben.name)
    await is_over(ben)
    await all_hear(group.moderator, [cat], b"after")
    await all_hear(cat, [group.moderator], b"indeed")


@case("a removed member can be invited again")
async def invite_again(bed):
    group = await Group.form(bed)
    ben, cat = group.members
    await group.moderator.remove_and_wait_async(group.ben.name)
    await is_over(ben)
    heard = asyncio.create_task(group.ben.app.listen_for_session_async(seconds(20)))
    await group.moderator.invite_and_wait_async(group.ben.name)
    ben = await heard
    await all_hear(ben, [group.moderator, cat], b"back")


@case("a member leaves by itself")
async def leave(bed):
    group = await Group.form(bed)
    ben, cat = group.members
    await group.ben.app.delete_session_and_wait_async(ben)
    try:
        await group.moderator.get_message_async(seconds(20))
        check(False, "a message arrived in place of the news")
    except slim.SlimError as news:
        check("participant disconnected" in str(news), f"unexpected: {news}")
    await all_hear(cat, [group.moderator], b"he left")


@case("two groups of the same three apps do not mix")
async def two_groups(bed):
    one = await Group.form(bed)
    two = await Group.form(bed, [one.ann, one.ben, one.cat], "other-channel")
    for round in range(5):
        text = b"round %d" % round
        await asyncio.gather(
            all_hear(one.moderator, one.members, b"one " + text), all_hear(two.moderator, two.members, b"two " + text)
        )


@case("a payload of 1 Mi octets reaches both members", seconds=90)
async def large(bed):
    group = await Group.form(bed, mls=False)
    await all_hear(group.moderator, group.members, bytes(1 << 20))
