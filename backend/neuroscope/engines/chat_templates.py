"""Chat templates: messages in a model's format, rendered in a process that cannot take the time or the memory of this one.

The variables are those of transformers: `messages`, `add_generation_prompt`, the special tokens, and `tools` and `documents`, which are None.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuroscope import events
from neuroscope.errors import ArgumentError

#: Seconds that rendering may take, and characters of a template.
PATIENCE, LONGEST = 10.0, 1 << 20

_idle: list[_Renderer] = []
_lock = threading.Lock()


def chat_text(tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
    """Messages in the format of a tokenizer's chat template. Raises `ArgumentError` with what the template says, or why it was ended."""
    special = getattr(tokenizer, "special_tokens", None)
    known = special if isinstance(special, Mapping) else tokenizer.special_tokens_map
    given = {"messages": list(messages), "add_generation_prompt": add_generation_prompt, "tools": None, "documents": None}
    return render(str(tokenizer.chat_template), {**known, **given})


def render(template: str, context: Mapping[str, Any]) -> str:
    """A template's text. Raises `ArgumentError` for one that fails, is too long, or takes too much time, memory or text."""
    if len(template) > LONGEST:
        raise ArgumentError(f"A chat template of {len(template):,} characters is too long.", remedy=f"At most {LONGEST:,}.")
    request = json.dumps({"template": template, "context": context}, default=str)
    with _lock:
        renderer = _idle.pop() if _idle else None
    found = (renderer or _Renderer()).ask(request)
    if "text" not in found:
        raise ArgumentError(f"The chat template fails: {found['error']}", remedy="Check the template and the messages.")
    return found["text"]


class _Renderer:
    """One process. It serves one request at a time, and waits among the idle ones in between."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", str(Path(__file__).with_name("template_process.py"))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="chat template", daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def ask(self, request: str) -> dict[str, str]:
        """The process's answer, or the error that ended it. Raises `CancelledError`."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
            line = self._answer()
        except OSError:
            line = ""
        except BaseException:
            self._end()
            raise
        if line:
            with _lock:
                _idle.append(self)
            answer: dict[str, str] = json.loads(line)
            return answer
        self._end()
        return {"error": f"it took more than {PATIENCE:g} seconds, or its process was ended"}

    def _answer(self) -> str:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                return self._answers.get(timeout=0.05)
            except queue.Empty:
                events.check_cancelled()
        return ""

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
