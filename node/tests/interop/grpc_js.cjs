// A hand-made SLIM link over @grpc/grpc-js, Node's own HTTP/2 stack: `node grpc_js.cjs HOST:PORT CASE`.
// Exits 0 when the case holds; otherwise says on stderr what was different.

const assert = require("node:assert");
const crypto = require("node:crypto");
const grpc = require("@grpc/grpc-js");

const OPEN_CHANNEL = "/dataplane.proto.v1.DataPlaneService/OpenChannel";
const MAC_INFO = "SLIM-DP-inter-node-hmac-v1";
const EDGE = 2;

// ---- protobuf: fields as [number, value]; numbers are BigInt or Number, all else is length-delimited ----

function varint(number) {
  let rest = BigInt(number);
  const octets = [];
  for (; rest > 0x7fn; rest >>= 7n) octets.push(Number(rest & 0x7fn) | 0x80);
  return Buffer.from([...octets, Number(rest)]);
}

function encode(...fields) {
  const parts = fields
    .filter(([, value]) => value !== undefined)
    .flatMap(([number, value]) => {
      if (typeof value === "number" || typeof value === "bigint") return [varint(number << 3), varint(value)];
      const octets = Buffer.from(value);
      return [varint((number << 3) | 2), varint(octets.length), octets];
    });
  return Buffer.concat(parts);
}

function decode(octets) {
  const fields = {};
  let at = 0;
  const number = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const octet = octets[at++];
      value |= BigInt(octet & 0x7f) << shift;
      if (octet < 0x80) return value;
    }
  };
  while (at < octets.length) {
    const tag = Number(number());
    let value = number();
    if ((tag & 7) === 2) {
      const end = at + Number(value);
      value = octets.subarray(at, end);
      at = end;
    }
    fields[tag >> 3] = value;
  }
  return fields;
}

// ---- names and the header MAC ----

function name(words, id) {
  const components = words.map((word) => crypto.createHash("sha256").update(word).digest().readBigUInt64BE());
  return { words, components, id };
}

function encodeName({ words, components, id }) {
  const encoded = encode(...components.map((value, index) => [index + 1, value]), [4, encode([2, id])]);
  return encode([1, encoded], [2, encode(...words.map((word, index) => [index + 1, word]))]);
}

function u32(value) {
  const octets = Buffer.alloc(4);
  octets.writeUInt32LE(value);
  return octets;
}

function u64(value) {
  const octets = Buffer.alloc(8);
  octets.writeBigUInt64LE(BigInt(value));
  return octets;
}

const text = (value) => Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)]);

function nameImage({ words, components, id }) {
  const one = Buffer.from([1]);
  return Buffer.concat([one, one, ...components.map(u64), one, u64(0), u64(id), one, ...words.map(text)]);
}

function header(link, source, destination) {
  const [identity, fanout, ttl] = ["by hand in js", 1, 8];
  const image = Buffer.concat([
    Buffer.from("SLIM-DP-HDR-v1\0"),
    text(link.id),
    nameImage(source),
    nameImage(destination),
    text(identity),
    u32(fanout),
    Buffer.from([0, 0, 0]),
    u32(ttl),
  ]);
  const mac = crypto.createHmac("sha256", link.key).update(image).digest();
  const names = [
    [1, encodeName(source)],
    [2, encodeName(destination)],
  ];
  return encode(...names, [3, identity], [4, fanout], [5, "3.4.6"], [6, ttl], [11, mac]);
}

// ---- the link ----

const raw = (octets) => octets;

class Link {
  constructor(client) {
    this.call = client.makeBidiStreamRequest(OPEN_CHANNEL, raw, raw, new grpc.Metadata());
    this.id = crypto.randomUUID();
    this.inbox = [];
    this.call.on("data", (octets) => this.arrived(octets));
    this.call.on("error", (error) => this.arrived(error));
    this.call.on("end", () => this.arrived(new Error("the stream ended")));
  }

  arrived(what) {
    if (this.wake) {
      const wake = this.wake;
      this.wake = undefined;
      wake(what);
    } else {
      this.inbox.push(what);
    }
  }

  async next() {
    const what = this.inbox.shift() ?? (await new Promise((wake) => (this.wake = wake)));
    if (what instanceof Error) throw what;
    return decode(what);
  }

  static async open(client) {
    const link = new Link(client);
    const { publicKey, privateKey } = crypto.generateKeyPairSync("x25519");
    const ours = publicKey.export({ type: "spki", format: "der" }).subarray(-32);
    link.call.write(encode([5, encode([1, encode([1, link.id], [2, "3.4.6"], [4, ours], [5, EDGE], [6, "js"])])]));
    const reply = decode(decode((await link.next())[5])[1]);
    assert.equal(reply[1].toString(), link.id);
    const spki = Buffer.concat([publicKey.export({ type: "spki", format: "der" }).subarray(0, -32), reply[4]]);
    const theirs = crypto.createPublicKey({ key: spki, format: "der", type: "spki" });
    const shared = crypto.diffieHellman({ privateKey, publicKey: theirs });
    link.key = Buffer.from(crypto.hkdfSync("sha256", shared, link.id, MAC_INFO, 32));
    return link;
  }

  async subscribe(held, id) {
    this.call.write(encode([1, encode([1, header(this, held, held)], [2, id])]));
    const ack = decode((await this.next())[6]);
    assert.equal(ack[1], BigInt(id));
    assert.equal(ack[2], 1n);
  }

  publish(from, to, payload) {
    const content = encode([1, encode([1, "msg"], [2, payload])]);
    const session = encode([1, 1], [2, 1], [3, 7], [4, 1]);
    this.call.write(encode([3, encode([1, header(this, from, to)], [2, session], [3, content])]));
  }

  async payload() {
    const publish = decode((await this.next())[3]);
    return decode(decode(publish[3])[1])[2] ?? Buffer.alloc(0);
  }
}

// ---- cases ----

const held = name(["slimline", "interop", `js-${process.pid}`], 5);

const cases = {
  async "there-and-back"(connect) {
    const [ask, answer] = [await Link.open(connect()), await Link.open(connect())];
    const back = name(held.words, 6);
    await answer.subscribe(held, 1);
    await ask.subscribe(back, 2);
    for (let round = 0; round < 100; round++) {
      ask.publish(back, held, `question ${round}`);
      assert.equal((await answer.payload()).toString(), `question ${round}`);
      answer.publish(held, back, `answer ${round}`);
      assert.equal((await ask.payload()).toString(), `answer ${round}`);
    }
  },

  async "one-connection"(connect) {
    const client = connect();
    const links = [await Link.open(client), await Link.open(client)];
    await links[0].subscribe(held, 1);
    links[1].publish(held, held, "next door");
    assert.equal((await links[0].payload()).toString(), "next door");
  },

  async large(connect) {
    const [sender, receiver] = [await Link.open(connect()), await Link.open(connect())];
    await receiver.subscribe(held, 1);
    for (const size of [1, 100_000, 1 << 20, 3900 << 10]) {
      const payload = crypto.randomBytes(size);
      sender.publish(held, held, payload);
      assert.ok(payload.equals(await receiver.payload()), `${size} octets`);
    }
  },

  async unimplemented(connect) {
    const client = connect();
    const code = await new Promise((done) => {
      client.makeUnaryRequest("/no.such.Service/Method", raw, raw, Buffer.alloc(0), (error) => done(error?.code));
    });
    assert.equal(code, grpc.status.UNIMPLEMENTED);
    await Link.open(client);
  },
};

async function main() {
  const [address, which] = process.argv.slice(2);
  const credentials = grpc.credentials.createInsecure();
  const options = { "grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": -1 };
  await cases[which](() => new grpc.Client(address, credentials, options));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error.message);
    process.exit(1);
  },
);
