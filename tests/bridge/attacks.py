"""The worst scripts of a session, and what another session notices of them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from tests.bridge.serving import Raw

#: Seconds that a script may run.
TIME = 5.0

SCRIPTS = {
    "endless loop": "[true] whileTrue: [1 + 1]",
    "padding": "[true] whileTrue: [('x' padLeftTo: 3999999) size]",
    "padding beyond": "'x' padLeftTo: 4000000000",
    "replacing": "s := 'ab' repeat: 1000000. [true] whileTrue: [s copyReplaceAll: 'a' with: 'c']",
    "joining": "c := (1 to: 100000) asArray. [true] whileTrue: [', ' join: c]",
    "doubling": "s := 'ab'. 60 timesRepeat: [s := s , s]",
    "reversing": "a := (1 to: 1000000) asArray. [true] whileTrue: [a reversed]",
    "colliding keys": "s := Set new. 1 to: 100000 do: [:i | s add: i * 2305843009213693951]",
    "large products": "x := 7 raisedTo: 46000. [true] whileTrue: [x * x]",
    "large quotients": "x := 7 raisedTo: 90000. y := 7 raisedTo: 45000. [true] whileTrue: [x \\\\ y]",
    "common divisors": "x := 7 raisedTo: 40000. y := 3 raisedTo: 70000. [true] whileTrue: [x gcd: y]",
    "patterns": "[true] whileTrue: [('a' repeat: 60) matchesRegex: '(a|aa)+b']",
    "printing": "a := #(1). 60 timesRepeat: [a := {a. a. a. a}]. [true] whileTrue: [a printString]",
    "comparing": "a := #(1). b := #(1). 60 timesRepeat: [a := {a. a}. b := {b. b}]. a = b",
    "sorting": "a := (1 to: 200000) asArray shuffled. [true] whileTrue: [a sorted]",
    "growing": "c := OrderedCollection new. [true] whileTrue: [c add: (Array new: 1000)]",
    "growing within ensure": "c := OrderedCollection new. b := nil. b := [[[true] whileTrue: [c add: (Array new: 1000)]] ensure: [b value]]. b value",
    "many classes": "1 to: 100000 do: [:i | Object subclass: ('C' , i printString) asSymbol]",
    "a million examples": "Dataset loadIOIExamples: 1000000000",
    "transcript": "[true] whileTrue: [Transcript show: 'abcdefghij'; cr]",
    "text": "x := 1. " * 60_000,
    "one statement": "[" + "x := 1. " * 60_000 + "] value",
}


def resident(process: subprocess.Popen[str]) -> float:
    """MiB of a process."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096 / 2**20


def attacked(process: subprocess.Popen[str], address: str, source: str, seconds: float = TIME) -> dict[str, Any]:
    """Run a script in one session while another asks for 3 + 4."""
    with Raw(address) as bad, Raw(address) as good:
        bad.value(op="hello", client="attacker", events=["transcript"])
        good.value(op="hello", client="another")
        before = most = resident(process)
        start = time.monotonic()
        number = bad.send(op="evaluate", source=source, time=seconds, answer={"form": "string"})
        waits: list[float] = []
        ended = None
        while ended is None and time.monotonic() - start < 4 * seconds:
            sent = time.monotonic()
            good.value(op="evaluate", source="3 + 4")
            waits.append(time.monotonic() - sent)
            most = max(most, resident(process))
            while bad.socket.poll(0):
                message = bad.receive()
                if message["type"] in ("result", "error") and message["re"] == number:
                    ended = message
        took = time.monotonic() - start
        bad.value(op="release", session=True)
    waits.sort()
    return {
        "p99": waits[int(0.99 * (len(waits) - 1))],
        "most": waits[-1],
        "asked": len(waits),
        "memory": most - before,
        "took": took,
        "ended": None if ended is None else ended.get("error", {}).get("code", "result"),
    }
