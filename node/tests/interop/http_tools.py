"""HTTP tools as found on any machine (curl, nghttp, h2load), and bytes that are no HTTP at all."""

import asyncio
import re
import shutil

from rawlink import Link
from slimkit import Skip, case, check, check_equal

NO_DOOR = "the reference has no /healthz"


async def tool(bed, program, *arguments):
    """Runs a program to its end: exit status and what it printed."""
    if not shutil.which(program):
        raise Skip(f"{program} is not installed")
    process = await asyncio.create_subprocess_exec(
        *(program, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    bed.defer(process.kill)
    printed, _ = await process.communicate()
    return process.returncode, printed.decode(errors="replace")


async def curl(bed, path, *arguments):
    format = "\n%{http_code} %{http_version}"
    quiet = ("-sS", "--max-time", "10", "--http2-prior-knowledge", "-w", format)
    return await tool(bed, "curl", *quiet, *arguments, bed.node.url + path)


@case("curl: GET /healthz says ok", ours_only=NO_DOOR)
async def healthz(bed):
    status, printed = await curl(bed, "/healthz")
    check_equal((status, printed.split()), (0, ["ok", "200", "2"]), "answer")


@case("curl: HEAD /healthz", ours_only=NO_DOOR)
async def head(bed):
    status, printed = await curl(bed, "/healthz", "--head")
    check_equal((status, printed.split()[-2:]), (0, ["200", "2"]), "answer")


@case("curl: another path is not answered with ok", ours_only=NO_DOOR)
async def not_found(bed):
    status, printed = await curl(bed, "/nothing-here", "--include")
    refused = "grpc-status: 12" in printed or printed.split()[-2] == "404"
    check(status == 0 and refused, f"exit status {status}, {printed!r}")


@case("curl: /healthz takes no POST", ours_only=NO_DOOR)
async def post(bed):
    status, printed = await curl(bed, "/healthz", "--data", "x" * 100_000)
    check(status == 0 and printed.split()[-2] in ("404", "405"), f"exit status {status}, {printed!r}")


@case("curl: HTTP/1.1 is turned away, the node serves on")
async def http1(bed):
    status, printed = await tool(bed, "curl", "-sS", "--max-time", "10", "--http1.1", bed.node.url + "/healthz")
    check(status != 28, f"neither answered nor closed: {printed}")
    await Link.open(bed)


@case("nghttp: GET /healthz, with every frame shown", ours_only=NO_DOOR)
async def nghttp(bed):
    status, printed = await tool(bed, "nghttp", "-nv", "--timeout=10", bed.node.url + "/healthz")
    check(status == 0 and ":status: 200" in printed, printed)
    check("GOAWAY" not in printed.split(":status: 200")[0], "GOAWAY before the answer")


@case("nghttp: 50 requests at once on one connection, a window of 256 octets", ours_only=NO_DOOR)
async def nghttp_many(bed):
    arguments = ("-n", "--stat", "--window-bits=8", "--multiply=50", "--timeout=10")
    status, printed = await tool(bed, "nghttp", *arguments, bed.node.url + "/healthz")
    answered = len(re.findall(r"\s200\s+\d+\s+/healthz", printed))
    check(status == 0 and answered == 50, f"exit status {status}, {answered} answers of 50")


@case("h2load: 10 000 requests over 20 connections, 10 at a time", ours_only=NO_DOOR)
async def h2load(bed):
    arguments = ("-n", "10000", "-c", "20", "-m", "10", "--connection-active-timeout=60")
    status, printed = await tool(bed, "h2load", *arguments, bed.node.url + "/healthz")
    check(status == 0, printed)
    counts = re.search(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed", printed)
    check(counts, printed)
    check_equal(counts.groups(), ("10000", "10000", "0"), "requests, succeeded, failed")


async def said(bed, octets, patience=15):
    """Sends octets on a bare TCP connection and half-closes; what comes back until the node closes."""
    host, port = bed.node.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    bed.defer(writer.close)
    try:
        async with asyncio.timeout(patience):
            writer.write(octets)
            writer.write_eof()
            return await reader.read()
    except TimeoutError:
        check(False, f"the connection is still open after {patience} s")
    except OSError:  # reset while we were still talking
        return b""


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


SETTINGS = frame(4, 0, 0)
GOAWAY, PING, RST_STREAM = 7, 6, 3


def closed_after(title, octets):
    @case(f"TCP: {title}: closed, the node serves on")
    async def run(bed):
        await said(bed, octets)
        await Link.open(bed)


closed_after("no octet at all", b"")
closed_after("half a preface", PREFACE[:10])
closed_after("garbage", bytes(range(256)) * 40)
closed_after("a TLS greeting", bytes.fromhex("16030100c8010000c40303") + bytes(200))
closed_after("a frame longer than allowed", PREFACE + SETTINGS + frame(0, 0, 1, bytes(20_000)))
closed_after("headers on stream 0", PREFACE + SETTINGS + frame(1, 5, 0, b"\x82"))
closed_after("headers on an even stream", PREFACE + SETTINGS + frame(1, 5, 2, b"\x82"))
closed_after("header compression gone wrong", PREFACE + SETTINGS + frame(1, 5, 1, b"\xff" * 30))
closed_after("a window that overflows", PREFACE + SETTINGS + frame(8, 0, 0, b"\x7f\xff\xff\xff"))
closed_after("200 000 pings", PREFACE + SETTINGS + frame(PING, 0, 0, bytes(8)) * 200_000)
closed_after("100 000 empty settings", PREFACE + SETTINGS * 100_000)
closed_after("10 000 resets of idle streams", PREFACE + SETTINGS + frame(RST_STREAM, 0, 1, bytes(4)) * 10_000)
closed_after("CONTINUATION without end", PREFACE + SETTINGS + frame(1, 0, 1, b"\x82") + frame(9, 0, 1, b"\0" * 100) * 1000)


@case("TCP: a protocol error is answered with GOAWAY")
async def goaway(bed):
    answer = await said(bed, PREFACE + SETTINGS + frame(1, 5, 0, b"\x82"))
    kinds = []
    while len(answer) >= 9:
        length = int.from_bytes(answer[:3], "big")
        kinds.append(answer[3])
        answer = answer[9 + length :]
    check(GOAWAY in kinds, f"frames {kinds}")
