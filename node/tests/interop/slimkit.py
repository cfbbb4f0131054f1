"""What every interop suite stands on: a node to talk to, SLIM apps, and cases with a clock.

A suite is a module whose functions carry `@case`; each is a coroutine that takes a `Bed` and raises when the node
behaves otherwise than the case says. Timings are reported and never decide.
"""

import asyncio
import contextlib
import datetime
import itertools
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import slim_bindings as slim

SECRET = "a-shared-secret-of-at-least-thirty-two-octets"
START_SECONDS = 20
STOP_SECONDS = 20


# ---- nodes -----------------------------------------------------------------------------------------------------------


class Node:
    """A node under test. We start and stop all kinds but `address`, which somebody else runs."""

    def __init__(self, kind, folder, binary=None, shards=1, address=None):
        self.kind = kind
        self.folder = Path(folder)
        self.binary = binary
        self.shards = shards
        self.address = address or f"127.0.0.1:{free_port()}"
        self.log = self.folder / "node.log"
        self.process = None

    @property
    def url(self):
        return f"http://{self.address}"

    @property
    def ours(self):
        """Whether this is slimline (an address somebody gave us is taken to be)."""
        return self.kind in ("slimline", "address")

    @property
    def restartable(self):
        return self.kind != "address"

    def start(self):
        """Returns once the node accepts connections."""
        if self.kind == "address":
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, env={**os.environ, "NO_COLOR": "1"}, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._accepts():
            if not self.alive():
                raise Failure(f"the node did not start: {self.log_tail()}")
            if time.monotonic() > deadline:
                raise Failure(f"the node does not accept connections after {START_SECONDS} s: {self.log_tail()}")
            time.sleep(0.02)

    def stop(self, how=signal.SIGTERM):
        """Ends the node and returns its exit code; a node that ignores the signal is killed and reported."""
        if self.process is None:
            return 0
        self.process.send_signal(how)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failure(f"the node did not stop within {STOP_SECONDS} s of {how.name}") from None
        finally:
            self.process = None

    def alive(self):
        return self.kind == "address" or (self.process is not None and self.process.poll() is None)

    def log_tail(self, lines=15):
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _accepts(self):
        host, port = self.address.rsplit(":", 1)
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return True
        return False

    def _command(self):
        if self.kind == "embedded":
            return [sys.executable, __file__, "serve", self.address]
        config = self.folder / "node.yaml"
        config.write_text(self._config())
        return [self.binary, "--config", str(config)]

    def _config(self):
        ours = f"slimline:\n  shards: {self.shards}\n" if self.kind == "slimline" else ""
        return (
            "services:\n  slim/0:\n    node_id: interop\n    dataplane:\n      servers:\n"
            f"        - endpoint: {self.address}\n          tls: {{insecure: true}}\n{ours}"
        )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(address):
    """Runs the node that is embedded in the SDK, until killed."""
    slim.initialize_with_defaults()
    slim.get_global_service().run_server(slim.new_insecure_server_config(address))
    signal.pause()


# ---- cases -----------------------------------------------------------------------------------------------------------


class Failure(Exception):
    """The node did not do what the case says."""


class Skip(Exception):
    """The case cannot be tried here; the text says why."""


@dataclass
class Case:
    title: str
    run: object
    seconds: float
    restarts: bool
    ours_only: str | None


CASES = []


def case(title, *, seconds=60, restarts=False, ours_only=None):
    """Registers a case.

    `restarts`: stops and starts the node. `ours_only`: why a control node is not asked, mostly a fault it is known for.
    """

    def register(run):
        CASES.append(Case(title, run, seconds, restarts, ours_only))
        return run

    return register


def check(condition, otherwise):
    if not condition:
        raise Failure(otherwise)


def check_equal(found, expected, what):
    check(found == expected, f"{what}: found {shorten(found)}, expected {shorten(expected)}")


def shorten(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"


class Bed:
    """What a case is given: the node, apps that go away with the case, and a place for measured values."""

    _numbers = itertools.count(1)

    def __init__(self, node):
        self.node = node
        self.measures = {}
        self._cleanup = contextlib.AsyncExitStack()
        self._apps = []  # an app whose last reference goes takes its sessions along
        self._tag = f"{os.getpid():x}{next(self._numbers):x}"

    def unique(self, word):
        """A name component no other case uses."""
        return f"{word}-{self._tag}"

    def _service(self, word):
        """A service name no other service of this process uses."""
        return f"{word}-{self._tag}-{next(self._numbers)}"

    def defer(self, callback, *arguments):
        """Calls (or awaits) `callback` when the case is over."""
        self._cleanup.push_async_callback(_ignoring, callback, *arguments)

    def measure(self, what, milliseconds):
        """Reports the median and the worst of durations in ms."""
        self.measures[what] = {
            "median_ms": round(statistics.median(milliseconds), 3),
            "max_ms": round(max(milliseconds), 3),
            "count": len(milliseconds),
        }

    async def app(self, word, secret=SECRET):
        """An SDK app of its own, connected to the node and subscribed to its name; a word may be used once."""
        service = slim.create_service(self._service(word))
        connection = await service.connect_async(slim.new_insecure_client_config(self.node.url))
        name = slim.Name("slimline", "interop", self.unique(word))
        app = service.create_app_with_secret(name, secret)
        await app.subscribe_async(name, connection)
        self.defer(service.disconnect, connection)
        self._apps.append(App(service, app, name, connection))
        return self._apps[-1]

    async def close(self):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(15):
                await self._cleanup.aclose()


async def _ignoring(callback, *arguments):
    with contextlib.suppress(Exception):
        result = callback(*arguments)
        if asyncio.iscoroutine(result):
            await result


@dataclass
class App:
    """A program with a SLIM name, and its connection."""

    service: object
    app: object
    name: object
    connection: int


async def run_suite(suite, node, wanted=None):
    """Runs the registered cases against `node`; yields one result per case."""
    for each in CASES:
        if wanted and wanted not in each.title:
            continue
        bed = Bed(node)
        started = time.monotonic()
        outcome, detail = await _run_case(each, bed)
        result = {
            "suite": suite,
            "case": each.title,
            "outcome": outcome,
            "ms": round(1000 * (time.monotonic() - started)),
            "detail": detail,
            "measures": bed.measures,
        }
        await bed.close()
        if not node.alive():
            result |= {"outcome": "failed", "detail": f"the node died: {node.log_tail()}"}
            node.start()
        yield result


async def _run_case(each, bed):
    if each.ours_only and not bed.node.ours:
        return "skipped", each.ours_only
    if each.restarts and not bed.node.restartable:
        return "skipped", "the node is not ours to restart"
    try:
        async with asyncio.timeout(each.seconds):
            await each.run(bed)
    except Skip as reason:
        return "skipped", str(reason)
    except TimeoutError:
        return "failed", f"not done after {each.seconds} s\n{bed.node.log_tail()}"
    except Failure as failure:
        return "failed", str(failure)
    except Exception as error:  # whatever an SDK or a library raises is the case's answer
        return "failed", f"{type(error).__name__}: {error}"
    return "passed", ""


# ---- sessions --------------------------------------------------------------------------------------------------------


def seconds(number):
    return datetime.timedelta(seconds=number)


def session_config(kind="P2P", *, mls=True, reliable=True, metadata=None):
    return slim.SessionConfig(
        session_type=slim.SessionType.POINT_TO_POINT if kind == "P2P" else slim.SessionType.GROUP,
        max_retries=5 if reliable else None,
        interval=seconds(2) if reliable else None,
        metadata=metadata or {},
        mls_settings=slim.MlsSettings(header_integrity_validation_percent=100, max_seen_control_message_ids_size=None)
        if mls
        else None,
    )


async def talk(initiator, responder, **config):
    """A P2P session: the initiator's end and the responder's."""
    heard = asyncio.create_task(responder.app.listen_for_session_async(seconds(20)))
    ours = await initiator.app.create_session_and_wait_async(session_config("P2P", **config), responder.name)
    return ours, await heard


async def expect(session, payload, what="message"):
    """The next message of `session`, which must carry `payload`."""
    message = await session.get_message_async(seconds(20))
    check_equal(message.payload, payload, what)
    return message


if __name__ == "__main__" and sys.argv[1:2] == ["serve"]:
    serve(sys.argv[2])
