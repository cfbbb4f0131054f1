"""A SLIM link made by hand over grpcio: every octet of it is ours to choose.

Just enough protobuf to write and read the messages of `dataplane.proto.v1`; field numbers stand where they are used.
"""

import asyncio
import hashlib
import hmac
import struct
import uuid
from dataclasses import dataclass, field, replace

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from slimkit import Failure, check, check_equal

OPEN_CHANNEL = "/dataplane.proto.v1.DataPlaneService/OpenChannel"
REMOTE, PEER, EDGE = 0, 1, 2
NULL_ID = (1 << 128) - 1
QUIET_SECONDS = 0.4  # how long we listen before we believe that nothing comes


# ---- protobuf --------------------------------------------------------------------------------------------------------


def varint(number):
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def encode(*fields):
    """Fields as (number, value): an int becomes a varint, text and octets are length-delimited, None is left out."""
    octets = bytearray()
    for number, value in fields:
        if value is None:
            continue
        if isinstance(value, int):
            octets += varint(number << 3) + varint(value)
        else:
            value = value.encode() if isinstance(value, str) else bytes(value)
            octets += varint(number << 3 | 2) + varint(len(value)) + value
    return bytes(octets)


def decode(octets):
    """The fields of a message: number to value (the last, if it is repeated)."""
    fields, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            value |= (octets[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if octets[at - 1] < 0x80:
                return value

    while at < len(octets):
        tag = number()
        value = number()
        if tag & 7 == 2:
            value, at = octets[at : at + value], at + value
        elif tag & 7 != 0:
            raise Failure(f"unexpected wire type in tag {tag}")
        fields[tag >> 3] = value
    return fields


# ---- names and headers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Name:
    """Three components and an id. A node does not check hashes against text, so any stable hash will do."""

    text: tuple
    id: int | None = None  # None leaves name_id out
    with_text: bool = True

    @classmethod
    def parse(cls, text, id=None):
        return cls(tuple(text.split("/")), id)

    @property
    def components(self):
        return [int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest()) for part in self.text]

    def anyone(self):
        return replace(self, id=NULL_ID)

    def encode(self):
        id = None if self.id is None else encode((1, self.id >> 64 or None), (2, self.id & (1 << 64) - 1 or None))
        encoded = encode(*enumerate(self.components, 1), (4, id))
        return encode((1, encoded), (2, encode(*enumerate(self.text, 1)) if self.with_text else None))


@dataclass
class Header:
    source: Name | None
    destination: Name | None
    identity: str = "by hand"
    fanout: int = 1
    version: str = "3.4.6"
    ttl: int = 8
    recv_from: int | None = None
    forward_to: int | None = None
    incoming_conn: int | None = None
    error: bool | None = None

    def encode(self, mac=None):
        name = lambda it: it and it.encode()
        return encode(
            *((1, name(self.source)), (2, name(self.destination)), (3, self.identity), (4, self.fanout)),
            *((5, self.version), (6, self.ttl), (7, self.recv_from), (8, self.forward_to), (9, self.incoming_conn)),
            *((10, None if self.error is None else int(self.error)), (11, mac)),
        )


def header_mac(key, link_id, header):
    """The tag over an encoded header, as the sender and the receiver of a link both compute it."""
    fields = decode(header)
    text = lambda octets: struct.pack("<I", len(octets)) + octets
    optional = lambda number, layout: struct.pack(layout, 1, fields[number]) if number in fields else b"\0"

    def name(number):
        if number not in fields:
            return b"\0"
        parts = decode(fields[number])
        image = b"\1"
        if 1 in parts:
            encoded = decode(parts[1])
            image += struct.pack("<B3Q", 1, *(encoded.get(at, 0) for at in (1, 2, 3)))
            if 4 in encoded:
                id = decode(encoded[4])
                image += struct.pack("<B2Q", 1, id.get(1, 0), id.get(2, 0))
            else:
                image += b"\0"
        else:
            image += b"\0"
        if 2 in parts:
            strings = decode(parts[2])
            image += b"\1" + b"".join(text(strings.get(at, b"")) for at in (1, 2, 3))
        else:
            image += b"\0"
        return image

    image = b"SLIM-DP-HDR-v1\0" + text(link_id.encode()) + name(1) + name(2) + text(fields.get(3, b""))
    image += struct.pack("<I", fields.get(4, 0)) + optional(7, "<BQ") + optional(8, "<BQ") + optional(10, "<BB")
    image += struct.pack("<I", fields.get(6, 0))
    return hmac.digest(key, image, "sha256")


# ---- the link --------------------------------------------------------------------------------------------------------


@dataclass
class Received:
    """A Publish as it arrived."""

    header: dict
    session: bytes
    content: bytes
    metadata: bytes | None


def open_channel(address):
    """An HTTP/2 connection of its own (grpcio shares them otherwise)."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.aio.insecure_channel(address, options=options)


@dataclass
class Link:
    """One OpenChannel stream."""

    call: object
    link_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    key: bytes | None = None
    reply: dict = field(default_factory=dict)
    requests: int = 0
    waiting: list = field(default_factory=list)  # publishes that came while we looked for an ack

    @classmethod
    async def open(cls, bed, channel=None, **negotiation):
        """A negotiated link; on its own connection unless `channel` is given."""
        link = await cls.open_stream(bed, channel)
        await link.negotiate(**negotiation)
        return link

    @classmethod
    async def open_stream(cls, bed, channel=None, **call_options):
        if channel is None:
            channel = open_channel(bed.node.address)
            bed.defer(channel.close)
        call = channel.stream_stream(OPEN_CHANNEL)(**call_options)
        bed.defer(call.cancel)
        async with asyncio.timeout(5):
            await call.initial_metadata()  # a node answers before it has heard anything
        return cls(call)

    async def negotiate(self, *, hybrid=False, **changes):
        """Sends our offer, checks the answer and derives the key."""
        private = X25519PrivateKey.generate()
        kem = mlkem.MLKEM768PrivateKey.generate() if hybrid else None
        await self.send_offer(private=private, kem=kem, **changes)
        reply = decode(decode(decode(await self.next_octets())[5])[1])
        check_equal(reply[1].decode(), self.link_id, "link id in the reply")
        check_equal(reply.get(3), 1, "is_reply")
        check_equal(reply.get(5, 0), changes.get("connection_type", EDGE), "connection type in the reply")
        check_equal(len(reply.get(4, b"")), 32, "octets of the node's X25519 key")
        shared = private.exchange(X25519PublicKey.from_public_bytes(reply[4]))
        info = b"SLIM-DP-inter-node-hmac-v1"
        if hybrid:
            check_equal(len(reply.get(8, b"")), 1088, "octets of ML-KEM ciphertext")
            shared, info = shared + kem.decapsulate(reply[8]), info + b"-pq"
        self.key = HKDF(hashes.SHA256(), 32, salt=self.link_id.encode(), info=info).derive(shared)
        self.reply = reply

    async def send_offer(
        self, *, private=None, public=None, kem=None, version="3.4.6", connection_type=EDGE, is_reply=None, link_id=None
    ):
        if link_id is not None:
            self.link_id = link_id
        if public is None:
            public = (private or X25519PrivateKey.generate()).public_key().public_bytes_raw()
        offer = encode(
            *((1, self.link_id or None), (2, version), (3, is_reply), (4, public), (5, connection_type)),
            *((6, f"by-hand-{self.link_id}"), (8, kem and kem.public_key().public_bytes_raw())),
        )
        await self.send(encode((5, encode((1, offer)))))

    async def send(self, octets):
        async with asyncio.timeout(10):
            await self.call.write(octets)

    def signed(self, header, mac=True):
        octets = header.encode()
        if mac is True:
            mac = header_mac(self.key, self.link_id, octets)
        return header.encode(mac or None)

    async def subscribe(self, name, id=None, *, kind=1, mac=True, **changes):
        """Sends a Subscribe and checks its ack; returns the subscription id."""
        id = await self.request(name, id, kind=kind, mac=mac, **changes)
        success, error = await self.ack(id)
        check(success, f"refused: {error}")
        return id

    async def unsubscribe(self, name, id):
        """Sends an Unsubscribe; returns success and text of its ack."""
        return await self.ack(await self.request(name, id, kind=2))

    async def request(self, name, id=None, *, kind=1, mac=True, **changes):
        """Sends a Subscribe (kind 1) or Unsubscribe (2) and waits for nothing."""
        if id is None:
            self.requests += 1
            id = self.requests
        header = Header(name, name, **changes)
        await self.send(encode((kind, encode((1, self.signed(header, mac)), (2, id or None)))))
        return id

    async def ack(self, id, patience=5):
        """The ack of a request; acks may overtake each other, so others are passed over."""
        while True:
            fields = decode(await self.next_octets(patience))
            if 6 not in fields:
                self.waiting.append(fields)
            elif decode(fields[6]).get(1, 0) == id:
                ack = decode(fields[6])
                return bool(ack.get(2, 0)), ack.get(3, b"").decode()

    async def publish(self, source, destination, payload=b"", *, mac=True, metadata=None, **changes):
        await self.send(self.publish_octets(source, destination, payload, mac=mac, metadata=metadata, **changes))

    def publish_octets(self, source, destination, payload=b"", *, mac=True, metadata=None, **changes):
        header = self.signed(Header(source, destination, **changes), mac)
        content = encode((1, encode((1, "msg"), (2, payload))))
        publish = encode((1, header), (2, encode((1, 1), (2, 1), (3, 7), (4, 1))), (3, content))
        return encode((3, publish), (4, metadata))

    async def receive(self, patience=5):
        """The next Publish, its MAC checked; acks before it are passed over."""
        fields = self.waiting.pop(0) if self.waiting else decode(await self.next_octets(patience))
        while 6 in fields:
            fields = decode(await self.next_octets(patience))
        check(3 in fields, f"not a Publish but fields {sorted(fields)}")
        publish = decode(fields[3])
        header = decode(publish[1])
        if self.key:
            without_mac = encode(*((number, value) for number, value in header.items() if number != 11))
            expected = header_mac(self.key, self.link_id, without_mac)
            check_equal(header.get(11), expected, "header MAC of a forwarded message")
        return Received(header, publish.get(2, b""), publish.get(3, b""), fields.get(4))

    async def payload(self, patience=5):
        """The application payload of the next Publish."""
        content = decode((await self.receive(patience)).content)
        return decode(content[1]).get(2, b"")

    async def hears_nothing(self, what="a message"):
        if self.waiting:
            raise Failure(f"{what} arrived: {self.waiting[0]}")
        try:
            octets = await self.next_octets(QUIET_SECONDS)
        except TimeoutError:
            return
        raise Failure(f"{what} arrived: {octets[:100]!r}")

    async def next_octets(self, patience=5):
        """The next message, undecoded; a stream that ends instead is a failure that names its status."""
        if not hasattr(self, "_reading") or self._reading is None:
            self._reading = asyncio.ensure_future(self.call.read())
        done, _ = await asyncio.wait([self._reading], timeout=patience)
        if not done:
            raise TimeoutError  # the read goes on: cancelling it would cancel the stream
        reading, self._reading = self._reading, None
        octets = await self._answer(reading)
        if octets is None:
            raise Failure(f"the stream ended: {await self.call.code()} {await self.call.details()!r}")
        return octets

    @staticmethod
    async def _answer(reading):
        try:
            octets = reading.result()
        except grpc.aio.AioRpcError as error:
            raise Failure(f"the stream ended: {error.code()} {error.details()!r}") from None
        return None if octets is grpc.aio.EOF else octets

    async def end(self, patience=10):
        """Waits for the node to end the stream, having said nothing more; its status."""
        try:
            octets = await self.next_octets(patience)
        except TimeoutError:
            raise Failure(f"the stream is still open after {patience} s") from None
        except Failure:
            return await self.call.code()
        raise Failure(f"an answer in place of the end: {octets[:100]!r}")

    async def close(self):
        """Half-closes and waits for the node's end."""
        await self.call.done_writing()
        return await self.end()
