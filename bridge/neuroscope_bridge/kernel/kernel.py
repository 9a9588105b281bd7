"""The kernel: a workspace behind Jupyter's messages."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any, ClassVar

from ipykernel.kernelbase import Kernel

import neuroscope
from neuroscope import events
from neuroscope.errors import NeuroScopeError
from neuroscope.results import Result
from neuroscope_bridge.cli.run import RunOptions, prepared
from neuroscope_bridge.kernel.install import EMBEDDED
from neuroscope_dsl.documentation import describe
from neuroscope_dsl.workspace import Workspace

#: Seconds of a job between two reports of its progress.
_GLANCE = 1.0


class NeuroScopeKernel(Kernel):  # type: ignore[misc]  # ipykernel has no types
    """Cells are scripts in one workspace. `?` after or before a name shows what it means."""

    implementation = "neuroscope"
    implementation_version = neuroscope.__version__
    banner = f"NeuroScope {neuroscope.__version__}"
    language_info: ClassVar[dict[str, Any]] = {
        "name": "smalltalk",
        "version": neuroscope.__version__,
        "mimetype": "text/x-stsrc",
        "file_extension": ".st",
        "codemirror_mode": "smalltalk",
        "pygments_lexer": "neuroscope",
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ends = contextlib.ExitStack()
        given = RunOptions(
            files=[],
            engine=os.environ.get("NEUROSCOPE_ENGINE"),
            dtype=os.environ.get("NEUROSCOPE_DTYPE"),
            device=os.environ.get("NEUROSCOPE_DEVICE"),
            seed=int(os.environ.get("NEUROSCOPE_SEED", "0")),
            embedded=os.environ.get(EMBEDDED, "") not in ("", "0"),
        )
        self._given = given
        self._lock = threading.RLock()
        self.workspace: Workspace = self._ends.enter_context(prepared(given, transcript=self._show))

    # --- evaluation -----------------------------------------------------------------------------------------------

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: dict[str, Any] | None = None,
        allow_stdin: bool = False,
        **_: Any,
    ) -> dict[str, Any]:
        """Run a cell; its last value is the result."""
        try:
            asked = code.strip()
            if asked.startswith("?") or asked.endswith("?"):
                self._show(describe(self.workspace, asked.strip("?")) + "\n")
            elif asked:
                with events.listen(self._event):
                    value = self.workspace.run(code, file=f"<cell {self.execution_count}>")
                if not silent and value is not self.workspace.transcript and value is not None:
                    self._answer(value)
        except KeyboardInterrupt:
            return self._failed(silent, "Interrupted", "The cell was interrupted.")
        except NeuroScopeError as error:
            rendered = getattr(error, "render", None)
            text = str(rendered()) if callable(rendered) else str(error)
            return self._failed(silent, getattr(error, "title", None) or type(error).__name__, text)
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}

    def _answer(self, value: Any) -> None:
        shown = value.summary() if isinstance(value, Result) else self.workspace.print_string(value)
        data = {"text/plain": shown}
        html = getattr(value, "_repr_html_", None)
        if callable(html):
            data["text/html"] = html()
        content = {"execution_count": self.execution_count, "data": data, "metadata": {}}
        self.send_response(self.iopub_socket, "execute_result", content)

    def _failed(self, silent: bool, name: str, text: str) -> dict[str, Any]:
        content = {"ename": name, "evalue": text.splitlines()[0], "traceback": text.splitlines()}
        if not silent:
            self.send_response(self.iopub_socket, "error", content)
        return {"status": "error", "execution_count": self.execution_count, **content}

    # --- streams --------------------------------------------------------------------------------------------------

    def _show(self, text: str, stream: str = "stdout") -> None:
        self.send_response(self.iopub_socket, "stream", {"name": stream, "text": text})

    def _event(self, event: events.Event) -> None:
        if isinstance(event, events.Notice):
            self._show(f"{event.message}\n", "stderr")
        elif event.finished and event.seconds >= _GLANCE:
            self._show(f"{event.job}: {event.done} {event.unit} in {event.seconds:.1f} s\n", "stderr")

    # --- help -----------------------------------------------------------------------------------------------------

    def do_complete(self, code: str, cursor_pos: int) -> dict[str, Any]:
        """Names and selectors before the cursor."""
        found = self.workspace.complete(code, cursor_pos)
        return {
            "status": "ok",
            "matches": list(found.choices),
            "cursor_start": found.start,
            "cursor_end": cursor_pos,
            "metadata": {},
        }

    def do_is_complete(self, code: str) -> dict[str, Any]:
        """Whether Enter should run the text."""
        return {"status": "complete"} if self.workspace.is_complete(code) else {"status": "incomplete", "indent": "    "}

    def do_inspect(self, code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Any = ()) -> dict[str, Any]:
        """What the name at the cursor means."""
        try:
            data = {"text/plain": describe(self.workspace, _at(code, cursor_pos))}
        except NeuroScopeError:
            data = {}
        return {"status": "ok", "found": bool(data), "data": data, "metadata": {}}

    def do_shutdown(self, restart: bool) -> dict[str, Any]:
        self._ends.close()
        return {"status": "ok", "restart": restart}


def _at(code: str, cursor: int) -> str:
    """The name at the cursor, with the name before it if it is a message to that.

    >>> _at("x := CircuitFinder for: model", 12)
    'CircuitFinder'
    >>> _at("CircuitFinder for: model", 16)
    'CircuitFinder for:'
    """
    start = cursor
    while start > 0 and (code[start - 1].isalnum() or code[start - 1] in "_:"):
        start -= 1
    end = cursor
    while end < len(code) and (code[end].isalnum() or code[end] in "_:"):
        end += 1
    word, before = code[start:end], code[:start].split()
    if before and before[-1].isidentifier() and not word[:1].isupper():
        return f"{before[-1]} {word}"
    return word
