"""@grpc/grpc-js, Node's own HTTP/2 stack, as a client; the cases themselves are in grpc_js.cjs."""

import asyncio
import os
import shutil
from pathlib import Path

from slimkit import Skip, case, check

PACKAGES = Path(os.environ.get("SLIMLINE_INTEROP_PACKAGES", "target/interop-js"))


def js_case(title, which):
    @case(title)
    async def run(bed):
        if not shutil.which("node") or not (PACKAGES / "node_modules/@grpc/grpc-js").is_dir():
            raise Skip("node or @grpc/grpc-js is not installed")
        program = Path(__file__).with_suffix(".cjs")
        environment = {**os.environ, "NODE_PATH": str(PACKAGES / "node_modules")}
        process = await asyncio.create_subprocess_exec(
            *("node", str(program), bed.node.address, which), env=environment, stderr=asyncio.subprocess.PIPE
        )
        bed.defer(process.kill)
        _, said = await process.communicate()
        check(process.returncode == 0, said.decode().strip())


js_case("100 questions and answers over two connections", "there-and-back")
js_case("two streams on one connection", "one-connection")
js_case("payloads up to 3.9 Mi octets arrive unchanged", "large")
js_case("an unknown method is UNIMPLEMENTED", "unimplemented")
