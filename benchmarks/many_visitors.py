"""Load of 20 visitors on one dashboard: they click through its pages, then a tenth of them prompts a model too.

`python -m benchmarks.many_visitors [--seconds 120] [--json]`. The server is a process of its own. Each visitor sends
the requests of a browser: pages, features with their lists, searches, maps, circuits and scores of heads, with pauses
of 1.5 seconds on average. Every answer must be whole: an error status, or a page or callback that reports an error,
counts as one. Reported are the 99th percentile of all answers, the memory of the server at the end over that after a
minute (or a third of a shorter run), and the 95th percentile of readings of new prompts of 62 tokens by two of the
visitors.

A ratio of seconds is seconds / seconds of a dense product of two 2048 x 2048 matrices, measured before the load.
"""

import argparse
import http.client
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.prompt_page import MODEL, USERS_LIMIT, as_result, dense_speed, made_workspace, prompt
from benchmarks.report import Result, as_record, at_most, print_table

VISITORS, ASKING = 20, 2
PAUSE = 1.5
"""Seconds between two clicks of a visitor, on average."""
CLICK_LIMIT, GROWTH_LIMIT = 0.5, 1.1
WRONG = (b"That did not work", b"An unexpected ", b"wb-notice-error")
"""Parts of an answer that reports an error."""
FEATURES, MAP, CIRCUIT, HEADS = "demo", "demo-features", "ioi", MODEL
N_FEATURES = 512
SERVER = """
import sys
from dashboard.serve import make_server
from interp.workspace import Workspace
server = make_server(Workspace(sys.argv[1]))
print(server.server_port, flush=True)
server.serve_forever()
"""


@dataclass
class Log:
    """Seconds of the answers by kind of request, and what was wrong."""

    seconds: list[tuple[str, float]] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)

    def of(self, *kinds: str) -> list[float]:
        """Return the seconds of some kinds of requests; of all without a name."""
        return [taken for kind, taken in self.seconds if not kinds or kind in kinds]


class Visitor:
    """One browser without a window: a connection, its cookies, and the callbacks that the application has."""

    def __init__(self, port: int, log: Log, seed: int):
        self.log, self.rng, self.cookies = log, random.Random(seed), {}
        self.port, self.status = port, 0
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.ask("GET", "/")
        callbacks = json.loads(self.ask("GET", "/_dash-dependencies"))
        self.callbacks = {callback["output"]: callback for callback in callbacks}

    def ask(self, method: str, path: str, body: Any = None, kind: str = "") -> bytes:
        """Send one request and return the answer; note its seconds, and an error."""
        sent = None if body is None else json.dumps(body)
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        headers |= {} if sent is None else {"Content-Type": "application/json"}
        started = time.perf_counter()
        try:
            self.connection.request(method, path, sent, headers)
            answer = self.connection.getresponse()
            content, self.status = answer.read(), answer.status
        except (OSError, http.client.HTTPException) as error:
            self.log.problems[f"{kind}: {error!r}"] += 1
            self.connection.close()
            return b""
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.split(";")[0]
        if kind:
            self.log.seconds.append((kind, time.perf_counter() - started))
        if answer.status not in (200, 204) or any(phrase in content for phrase in WRONG):
            self.log.problems[f"{kind} {path}: {answer.status} {content[:120]!r}"] += 1
        return content

    def call(self, output: str, kind: str, **values: Any) -> bytes:
        """Call back as the browser does: `values` by id and property, with `__` for a dash and `_of_` for a dot."""
        known = next(callback for name, callback in self.callbacks.items() if output in name)
        properties = {name.replace("_of_", ".").replace("__", "-"): value for name, value in values.items()}

        def filled(parts: list[dict[str, str]]) -> list[dict[str, Any]]:
            return [{**part, "value": properties.get(f"{part['id']}.{part['property']}")} for part in parts]

        targets = [dict(zip(("id", "property"), target.rsplit(".", 1), strict=True))
                   for target in known["output"].strip(".").split("...")]  # fmt: skip
        several = known["output"].startswith("..")
        inputs = filled(known["inputs"])
        body = {
            "output": known["output"], "outputs": targets if several else targets[0], "inputs": inputs,
            "state": filled(known["state"]), "changedPropIds": [f"{inputs[0]['id']}.{inputs[0]['property']}"],
        }  # fmt: skip
        return self.ask("POST", "/_dash-update-component", body, kind)

    def open(self, path: str) -> bytes:
        """Open a page; return what the browser is sent."""
        properties = {"_pages_location_of_pathname": path.split("?")[0], "scheme_of_data": "light"}
        properties["_pages_location_of_search"] = "?" + path.partition("?")[2] if "?" in path else ""
        return self.call("_pages_content.children", "page", **properties)

    def click(self) -> None:
        """Do one of the things that a visitor does."""
        at, state = self.rng.randrange(N_FEATURES), {"features": FEATURES}
        match self.rng.randrange(8):
            case 0:
                self.open(self.rng.choice(["/", "/sae", "/runs", "/geometry", "/dynamics", "/changes", "/notes"]))
            case 1:
                self.open(f"/feature/{FEATURES}/{at}")
                self.call("feature-grid.getRowsResponse", "rows", feature__state_of_data={**state, "index": at},
                          feature__grid_of_getRowsRequest={"startRow": 0, "endRow": 100})  # fmt: skip
            case 2 | 3:
                self.call("feature-detail.children", "feature", feature__state_of_data={**state, "index": at},
                          scheme_of_data="light")  # fmt: skip
            case 4:
                word = self.rng.choice(["the", "river", "tensor", "head", "model", "layer"])
                self.ask("GET", f"/api/search?query={word}", kind="search")
            case 5:
                self.open(f"/atlas/{MAP}?point={at}")
                for column in ("about.json", "xy.bin", "regions.json", "value.bin"):
                    self.ask("GET", f"/atlas-data/{MAP}/{column}", kind="map")
            case 6:
                shown = {"n": self.rng.randrange(5, 60), "paths": False}
                self.ask("POST", f"/circuit-data/edge-circuits/{CIRCUIT}/part.json", shown, "circuit")
                self.call("circuit-grid.rowData", "circuit", circuit__view_of_data=shown, scheme_of_data="light",
                          circuit__name_of_data=CIRCUIT)  # fmt: skip
            case 7:
                self.call("heads-map.figure", "heads", heads__kind_of_value="induction", scheme_of_data="light",
                          heads__state_of_data={"name": HEADS, "model": MODEL})  # fmt: skip

    def read(self, number: int) -> None:
        """Run a new prompt."""
        body = {"text": prompt(62, number), "model": MODEL, "features": "", "chat": False, "visitor": f"v{id(self)}"}
        self.ask("POST", "/api/act/read_prompt", body, "read")


@contextmanager
def served(workspace: Any) -> Iterator[tuple[int, int]]:
    """Serve a workspace in a process; yield its port and its process number."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(workspace.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid
    finally:
        process.terminate()
        process.wait(20)


def resident(process: int) -> float:
    """Return the memory of a process in MB."""
    line = next(row for row in Path(f"/proc/{process}/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def load(port: int, process: int, seconds: float, asking: int, pause: float = PAUSE) -> tuple[Log, float, float]:
    """Let all visitors act for some seconds; return the log, and the memory after the first part and at the end."""
    log, end = Log(), time.monotonic() + seconds
    visitors = [Visitor(port, log, seed) for seed in range(VISITORS)]

    def act(number: int) -> None:
        visitor, count = visitors[number], 0
        while time.monotonic() < end:
            if number < asking:
                visitor.read(number + asking * count)
                count += 1
            else:
                visitor.click()
            time.sleep(visitor.rng.expovariate(1 / pause))

    threads = [threading.Thread(target=act, args=(number,)) for number in range(VISITORS)]
    for thread in threads:
        thread.start()
    time.sleep(min(60.0, seconds / 3))
    first = resident(process)
    for thread in threads:
        thread.join()
    return log, first, resident(process)


def run(seconds: float = 120) -> list[Result]:
    """Measure the answers to 20 visitors, and to 20 of whom two prompt."""
    dense = dense_speed()
    with tempfile.TemporaryDirectory() as folder, served(made_workspace(Path(folder) / "workspace")) as (port, process):
        clicks, first, last = load(port, process, seconds, asking=0)
        warm = Visitor(port, Log(), 0)
        warm.read(999)  # loads the model
        prompts, _, most = load(port, process, seconds, asking=ASKING)
    problems = clicks.problems + prompts.problems
    for problem, times in problems.most_common(10):
        print(f"{times} x {problem}", file=sys.stderr)
    slow, reads = float(np.quantile(clicks.of(), 0.99)), prompts.of("read")
    return [
        at_most(
            "errors while 20 visitors act",
            problems.total(),
            0,
            "no error",
            f"{len(clicks.seconds)} clicks, then {len(prompts.seconds)}",
        ),
        as_result("20 visitors click: 99th percentile", [slow], dense, CLICK_LIMIT),
        at_most(
            "20 visitors click: memory of the server",
            last / first,
            GROWTH_LIMIT,
            "its memory after a minute",
            f"{first:.0f} MB, then {last:.0f} MB; {most:.0f} MB with the model",
        ),
        as_result(
            "20 visitors, a tenth of whom prompt: 95th percentile of a reading",
            [float(np.quantile(reads, 0.95))],
            dense,
            USERS_LIMIT,
        ),
    ]


def main() -> None:
    """Run the load from the command line; exit code 1 where an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="length of each of the two loads")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    arguments = parser.parse_args()
    results = run(arguments.seconds)
    if arguments.json:
        print(json.dumps([as_record(result) for result in results], indent=1))
    else:
        print_table(results)
    sys.exit(1 if results[0].ratio else 0)


if __name__ == "__main__":
    main()
