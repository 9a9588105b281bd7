"""Mixed clients at a bounded rate on one server, for hours: its memory, its descriptors, and how long a small message waits.

python benchmarks/soak.py [--seconds 7200] [--rate 30] [--out build/soak]

Writes `soak.json` and `soak.html`. Ends with 1 if memory or descriptors go on growing, if in one of 100 cases a small message waits longer than
250 ms, or if the server does not answer as it should.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from tests.bridge.serving import Raw, save_tiny, serving

import neuroscope
from neuroscope.errors import NeuroScopeError
from neuroscope_bridge.client import block

#: MiB and descriptors by which the last third of a run may lie above the second, and seconds that a small message may wait in 99 of 100 cases.
MEMORY, DESCRIPTORS, WAIT = 20.0, 20, 0.25


@dataclass
class Soak:
    """What a run saw. samples: seconds since the start, MiB, descriptors, sessions' worth of small messages' waits in between (ms)."""

    seconds: float
    samples: list[tuple[float, float, int, float]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def growth(self, column: int) -> float:
        """Median of the last third less that of the third before: the first third warms up."""
        third = len(self.samples) // 3
        middle, last = self.samples[third : 2 * third], self.samples[2 * third :]
        return statistics.median(one[column] for one in last) - statistics.median(one[column] for one in middle)

    @property
    def p99(self) -> float:
        return sorted(self.waits)[int(0.99 * (len(self.waits) - 1))]

    def complaints(self) -> list[str]:
        """What did not hold."""
        found = [f"faults: {'; '.join(self.faults[:5])}"] if self.faults else []
        if self.growth(1) > MEMORY:
            found.append(f"memory grows: {self.growth(1):.1f} MiB from the second third to the last")
        if self.growth(2) > DESCRIPTORS:
            found.append(f"descriptors grow: {self.growth(2):.0f} from the second third to the last")
        if self.p99 > WAIT:
            found.append(f"a small message waits {self.p99 * 1e3:.0f} ms in one of 100 cases")
        return found


def _resident(process: int) -> float:
    with open(f"/proc/{process}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- clients: each does one small piece of work on the doors' addresses -----------------------------------------------


def _session(zeromq: str, http: str, chance: random.Random) -> None:
    with neuroscope.connect(zeromq) as ns:
        numbers = [chance.randrange(1000) for _ in range(20)]
        source = f"({{{'. '.join(map(str, numbers))}}}) inject: 0 into: [:sum :each | sum + each]"
        assert ns.evaluate(source) == sum(numbers)


def _activations(zeromq: str, http: str, chance: random.Random) -> None:
    with neuroscope.connect(zeromq) as ns:
        model = ns.TransformerModel.from_hugging_face("tiny")
        model.hook_manager.add_hook(ns.ActivationHook(layer=0, action=block("[:a | a * k]", k=chance.random())))
        assert model.run_with_caching("w5 w6")["1.residual"].numpy().shape[-1] == 32


def _cancelled(zeromq: str, http: str, chance: random.Random) -> None:
    with neuroscope.connect(zeromq) as ns:
        pending = ns.evaluate_later("[true] whileTrue")
        time.sleep(0.02)
        assert pending.cancel()
        assert ns.evaluate("3 + 4") == 7


def _faulty(zeromq: str, http: str, chance: random.Random) -> None:
    with neuroscope.connect(zeromq) as ns, contextlib.suppress(NeuroScopeError):
        ns.evaluate(chance.choice(["3 zork", "[:x", "1/0", "Dataset fromFile: '/etc/passwd'", "Array new: 1000000000"]))
        raise AssertionError("an error was expected")


def _garbled(zeromq: str, http: str, chance: random.Random) -> None:
    raw = Raw(zeromq)
    try:
        raw.socket.send_multipart([chance.randbytes(chance.randrange(200)) for _ in range(chance.randrange(1, 4))])
        time.sleep(0.01)
    finally:
        raw.socket.close(0)
        raw.context.term()


def _chat(zeromq: str, http: str, chance: random.Random) -> None:
    body = {"messages": [{"role": "user", "content": "w5 w6"}], "max_tokens": 16, "stream": True}
    with httpx.stream("POST", f"{http}/v1/chat/completions", json=body, timeout=60) as answer:
        assert answer.status_code == 200
        for _ in answer.iter_lines():
            if chance.random() < 0.1:  # leave in the middle
                return


def _unfinished(zeromq: str, http: str, chance: random.Random) -> None:
    place = urlsplit(http)
    with socket.create_connection((place.hostname or "", place.port or 0), 10) as opened:
        opened.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(chance.random() * 0.05)


CLIENTS: tuple[Callable[[str, str, random.Random], None], ...] = (
    _session,
    _activations,
    _cancelled,
    _faulty,
    _garbled,
    _chat,
    _unfinished,
)


def soak(seconds: float, rate: float, *, seed: int = 0, workers: int = 4) -> Soak:
    """Run the clients, `rate` pieces of work a second at most, and watch the server."""
    found, ended, lock = Soak(seconds), threading.Event(), threading.Lock()

    def work(number: int, zeromq: str, http: str) -> None:
        chance = random.Random(seed * 1000 + number)
        while not ended.is_set():
            begun = time.monotonic()
            client = chance.choice(CLIENTS)
            try:
                client(zeromq, http, chance)
            except Exception as error:
                with lock:
                    found.faults.append(f"{client.__name__}: {type(error).__name__}: {error}")
            with lock:
                found.done[client.__name__.strip("_")] += 1
            ended.wait(max(0.0, workers / rate - (time.monotonic() - begun)))

    with _served() as (process, zeromq, http), neuroscope.connect(zeromq) as small:
        threads = [threading.Thread(target=work, args=(number, zeromq, http), daemon=True) for number in range(workers)]
        for thread in threads:
            thread.start()
        start = time.monotonic()
        pause = min(1.0, seconds / 100)
        while time.monotonic() - start < seconds and process.poll() is None:
            asked = time.monotonic()
            assert small.evaluate("3 + 4") == 7
            found.waits.append(time.monotonic() - asked)
            now = time.monotonic() - start
            files = len(os.listdir(f"/proc/{process.pid}/fd"))
            found.samples.append((now, _resident(process.pid), files, found.waits[-1] * 1e3))
            time.sleep(pause)
        if process.poll() is not None:
            found.faults.append(f"the server ended with status {process.returncode}")
        ended.set()
        for thread in threads:
            thread.join(60)
    return found


@contextlib.contextmanager
def _served() -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    with tempfile.TemporaryDirectory() as place:
        tiny = save_tiny(Path(place) / "tiny")
        tokenizer = tiny / "tokenizer_config.json"
        settings = json.loads(tokenizer.read_text())
        settings["chat_template"] = "{% for message in messages %}{{ message.content }} {% endfor %}"
        tokenizer.write_text(json.dumps(settings))
        options = (
            "--alias",
            f"tiny={tiny}",
            "--model",
            "tiny",
            "--http",
            "127.0.0.1:0",
            "--folder",
            str(Path(place) / "files"),
        )
        with serving(*options) as (process, address):
            assert process.stdout is not None
            yield process, address, process.stdout.readline().split()[-1].rstrip("/")


def _page(found: Soak) -> str:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = ("resident memory (MiB)", "open descriptors", "a small message (ms)")
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, subplot_titles=names)
    times = [one[0] / 60 for one in found.samples]
    for row in range(3):
        figure.add_trace(
            go.Scatter(x=times, y=[one[row + 1] for one in found.samples], mode="lines", name=names[row]), row + 1, 1
        )
    figure.update_xaxes(title_text="minutes", row=3, col=1)
    figure.update_layout(
        title=f"{sum(found.done.values()):,} pieces of work of {len(found.done)} kinds", showlegend=False, height=800
    )
    return str(figure.to_html(include_plotlyjs=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=7200)
    parser.add_argument("--rate", type=float, default=30, help="pieces of work a second, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/soak"))
    options = parser.parse_args()
    found = soak(options.seconds, options.rate, seed=options.seed)
    complaints = write(found, options.out)
    print(f"{sum(found.done.values()):,} pieces of work in {found.seconds:.0f} s: {dict(found.done)}")
    print(
        f"memory {found.growth(1):+.1f} MiB, descriptors {found.growth(2):+.0f} from the second third to the last;"
        f" p99 {found.p99 * 1e3:.0f} ms"
    )
    print(options.out / "soak.html", *complaints, sep="\n")
    return int(bool(complaints))


def write(found: Soak, folder: Path) -> list[str]:
    """Write `soak.json` and `soak.html`, and return what did not hold."""
    complaints = found.complaints()
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        **vars(found),
        "p99": found.p99,
        "memory": found.growth(1),
        "descriptors": found.growth(2),
        "complaints": complaints,
    }
    (folder / "soak.json").write_text(json.dumps(report))
    (folder / "soak.html").write_text(_page(found), encoding="utf-8")
    return complaints


if __name__ == "__main__":
    sys.exit(main())
