"""`neuroscope repl`: an interactive workspace."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.patch_stdout import patch_stdout

import neuroscope
from neuroscope.errors import NeuroScopeError
from neuroscope.results import Result
from neuroscope_bridge.cli import show
from neuroscope_bridge.cli.run import RunOptions, prepared
from neuroscope_dsl.documentation import describe
from neuroscope_dsl.highlighting import NeuroScopeLexer
from neuroscope_dsl.workspace import Workspace

_GREETING = f"NeuroScope {neuroscope.__version__}. A complete statement or an empty line evaluates; Tab completes; ? helps; Ctrl-D leaves."

_HELP = """\
Statements are Smalltalk: model := TransformerModel fromHuggingFace: 'bundled:gpt2-medium'
An open bracket goes on to the next line; an empty line evaluates. Ctrl-C stops an evaluation, Ctrl-D leaves.

?                       this text
? CircuitFinder         what a class is for, and its messages
? model generate:       what a message does
? model                 what a variable holds
Smalltalk allClasses    every class
"""


def run_repl(options: RunOptions, *, debug: bool = False) -> bool:
    """Read, evaluate, print. An error does not end the session; Ctrl-C interrupts an evaluation.

    Return whether a statement of a pipe failed, for the exit status; at a terminal, where errors are part of trying, False.
    """
    with prepared(options) as workspace:
        if sys.stdin.isatty():
            print(_GREETING)
            session: PromptSession[str] = PromptSession(
                "> ",
                multiline=True,
                history=_history(),
                completer=_SelectorCompleter(workspace),
                complete_while_typing=False,
                key_bindings=_bindings(workspace),
                prompt_continuation="  ",
                lexer=PygmentsLexer(NeuroScopeLexer),
            )
            _loop(workspace, lambda: session.prompt(), debug)
            return False
        return _loop(workspace, _Piped(workspace), debug)


def _loop(workspace: Workspace, read: Any, debug: bool) -> bool:
    """Evaluate until the end. Return whether a statement failed."""
    failed = False
    while True:
        try:
            text = read()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return failed
        if not text.strip():
            continue
        try:
            if text.strip().startswith("?"):
                asked = text.strip().lstrip("? ")
                print(describe(workspace, asked) if asked else _HELP)
                continue
            with patch_stdout(raw=True), show.progress_shown():
                answer = workspace.run(text, file="<repl>")
            if answer is not workspace.transcript:
                print(answer.summary() if isinstance(answer, Result) else workspace.print_string(answer))
        except NeuroScopeError as error:
            if debug:
                traceback.print_exc()
            show.show_error(error)
            failed = True
        except KeyboardInterrupt:
            show.stderr.print("interrupted", style="bold red")
            failed = True


class _Piped:
    """Statements from a pipe: lines are gathered until they make a complete text."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def __call__(self) -> str:
        lines: list[str] = []
        for line in sys.stdin:
            lines.append(line)
            if lines[0].startswith("?") or self._workspace.is_complete("".join(lines)):
                break
        if not lines:
            raise EOFError
        return "".join(lines)


class _SelectorCompleter(Completer):
    """Names and selectors, from the workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        found = self._workspace.complete(document.text, document.cursor_position)
        for choice in found.choices:
            yield Completion(choice, start_position=found.start - document.cursor_position)


def _bindings(workspace: Workspace) -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if workspace.is_complete(buffer.text) or buffer.text.startswith("?") or buffer.document.current_line.strip() == "":
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return bindings


def _history() -> History:
    from neuroscope.models.cache import cache_folder

    try:
        folder: Path = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        return FileHistory(str(folder / "repl-history"))
    except OSError:  # the prompt works without a writable home
        return InMemoryHistory()
