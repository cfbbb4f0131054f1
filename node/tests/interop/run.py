"""Runs the interop suites against one node and reports.

    python run.py --against slimline --binary target/fast/slimline --shards 2 --reports target/interop

Each suite runs in a process of its own with a node of its own, so that none can spoil another. The exit status is 0
when nothing failed. Reports: NAME.json for machines, NAME.md for people.
"""

import argparse
import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import slim_bindings
import slimkit

SUITES = ["p2p", "group", "crowd", "rpc", "reconnect", "raw_grpc", "grpc_js", "http_tools"]
SUITE_SECONDS = 600


def main():
    arguments = parse()
    if arguments.child:
        return child(arguments)
    name = arguments.against.replace(":", "-") + (f"-{arguments.shards}" if arguments.against == "slimline" else "")
    reports = Path(arguments.reports)
    reports.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    results = []
    for suite in arguments.only or SUITES:
        results += run_in_child(suite, arguments, reports / name)
    report = {
        "against": arguments.against,
        "shards": arguments.shards if arguments.against == "slimline" else None,
        "software": software(),
        "seconds": round(time.monotonic() - started, 1),
        "counts": {key: sum(r["outcome"] == key for r in results) for key in ("passed", "failed", "skipped")},
        "cases": results,
    }
    (reports / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (reports / f"{name}.md").write_text(markdown(report))
    counts = report["counts"]
    print(f"\n{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", required=True, help="embedded, reference, slimline, or HOST:PORT")
    parser.add_argument("--binary", help="the node's program, for reference and slimline")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--reports", default="target/interop")
    parser.add_argument("--packages", default="target/interop-js", help="where node_modules is")
    parser.add_argument("--only", action="append", metavar="SUITE", choices=SUITES)
    parser.add_argument("--case", help="only cases whose title holds this")
    parser.add_argument("--child", metavar="SUITE", help=argparse.SUPPRESS)
    parser.add_argument("--results", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_in_child(suite, arguments, folder):
    """One suite's results; a suite that crashes or hangs is itself a failed case."""
    folder = folder / suite
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.log"):
        stale.unlink()
    with tempfile.NamedTemporaryFile("r") as results, open(folder / "apps.log", "wb") as log:
        command = [sys.executable, __file__, *sys.argv[1:], "--child", suite, "--results", results.name]
        command += ["--reports", str(folder)]
        environment = {"RUST_LOG": "warn", **os.environ, "NO_COLOR": "1"}
        try:
            ended = subprocess.run(command, stdout=log, env=environment, timeout=SUITE_SECONDS).returncode
        except subprocess.TimeoutExpired:
            ended = f"no end after {SUITE_SECONDS} s"
        cases = [json.loads(line) for line in results]
    if ended != 0:
        detail = f"the suite's process ended with {ended}; see {folder / 'apps.log'}"
        cases.append({"suite": suite, "case": "(suite)", "outcome": "failed", "ms": 0, "detail": detail, "measures": {}})
        print_result(cases[-1])
    return cases


def child(arguments):
    """Runs one suite here; results go to a file, lines for people to stderr, the SDK's log to stdout."""
    node = slimkit.Node(
        arguments.against if arguments.against in ("embedded", "reference", "slimline") else "address",
        arguments.reports,
        binary=arguments.binary,
        shards=arguments.shards,
        address=arguments.against if ":" in arguments.against else None,
    )
    os.environ["SLIMLINE_INTEROP_PACKAGES"] = os.path.abspath(arguments.packages)
    importlib.import_module(arguments.child)
    node.start()
    try:
        asyncio.run(run_cases(node, arguments))
    finally:
        node.stop()
    sys.stdout.flush()
    os._exit(0)  # the SDK's threads need not agree


async def run_cases(node, arguments):
    slim_bindings.uniffi_set_event_loop(asyncio.get_running_loop())
    slim_bindings.initialize_with_defaults()
    with open(arguments.results, "w", buffering=1) as results:
        async for result in slimkit.run_suite(arguments.child, node, arguments.case):
            results.write(json.dumps(result) + "\n")
            print_result(result)


def print_result(result):
    measures = "; ".join(f"{key} {m['median_ms']} ms (max {m['max_ms']})" for key, m in result["measures"].items())
    line = f"{result['outcome']:<8} {result['ms']:>7} ms  {result['suite']}: {result['case']}"
    print(line + (f"  [{measures}]" if measures else ""), file=sys.stderr, flush=True)
    if result["detail"] and result["outcome"] != "passed":
        print("\n".join(f"             {line}" for line in result["detail"].splitlines()), file=sys.stderr, flush=True)


def software():
    """The peers' versions, as installed."""
    versions = {"python": sys.version.split()[0]}
    for package in ("slim-bindings", "grpcio"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "missing"
    return versions


def markdown(report):
    shards = f" with {report['shards']} shard(s)" if report["shards"] else ""
    counts = report["counts"]
    lines = [
        f"# Interop: {report['against']}{shards}",
        "",
        f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped in {report['seconds']} s; "
        + ", ".join(f"{name} {version}" for name, version in report["software"].items())
        + ". Times are of this run and decide nothing.",
        "",
        "| suite | case | outcome | ms | measured (median / max, ms) |",
        "|---|---|---|---:|---|",
    ]
    for result in report["cases"]:
        measures = ", ".join(f"{key} {m['median_ms']} / {m['max_ms']}" for key, m in result["measures"].items())
        outcome = result["outcome"] + (f": {result['detail'].splitlines()[0]}" if result["detail"] else "")
        cells = (result["suite"], result["case"], outcome, str(result["ms"]), measures)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
