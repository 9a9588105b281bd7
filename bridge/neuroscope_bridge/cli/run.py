"""`neuroscope run`: scripts in one workspace, with their results as JSON and pages."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroscope import events, settings
from neuroscope.errors import ArgumentError, NeuroScopeError, reason
from neuroscope.results import Result
from neuroscope_bridge.cli import show
from neuroscope_bridge.cli.output import Failure, write_figures, write_json
from neuroscope_bridge.files import FileError, check_folder, check_writable
from neuroscope_dsl.workspace import Limits, Workspace

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel

#: What stands for a stream where a file may stand.
STANDARD_INPUT = STANDARD_OUTPUT = Path("-")

#: Seconds between two looks at watched files.
_GLANCE = 0.3


@dataclass(frozen=True)
class RunOptions:
    """The options that commands which load models share."""

    files: list[Path]
    expressions: list[str] = field(default_factory=list)
    model: str | None = None
    aliases: list[str] = field(default_factory=list)
    bindings: list[str] = field(default_factory=list)
    engine: str | None = None
    dtype: str | None = None
    device: str | None = None
    revision: str | None = None
    embedded: bool = False
    json_out: Path | None = None
    figures: Path | None = None
    seed: int | None = None
    time_limit: float | None = None
    quiet: bool = False
    tp: int | None = None
    workers: int | None = None
    ray: str | None = None


def run_files(options: RunOptions) -> None:
    """Run every file; print the value of the last statement; write JSON and pages if requested.

    A failed run writes its results so far, marked as failed, and raises.
    """
    texts = [*((str(path), _read(path)) for path in options.files), *(("-e", text) for text in options.expressions)]
    _check_writable(options)
    with prepared(options) as workspace:
        for name, text in texts:
            workspace.check(text, file=name)
        answer: Any = None
        try:
            with show.progress_shown(options.quiet):
                for name, text in texts:
                    answer = workspace.run(text, file=name)
            if answer is not workspace.transcript and not _is_output(
                options
            ):  # a script that ends with `Transcript show: …` has printed already
                print(_shown(workspace, answer))
        except BaseException as error:
            _leave(workspace, options, Failure.of(error))
            raise
        _leave(workspace, options)


def run_again(options: RunOptions) -> None:
    """Run the files, and again whenever one of them changes, until Ctrl-C. An error ends a run, not the watch."""
    from neuroscope.models.registry import ModelRegistry, sharing

    if Path("-") in options.files or not options.files:
        raise ArgumentError("--watch needs files that can change.", remedy="neuroscope run --watch FILE")
    with sharing(ModelRegistry()):
        while True:
            seen = _changes(options.files)
            try:
                run_files(options)
            except NeuroScopeError as error:
                show.show_error(error)
            print(f"watching {', '.join(str(path) for path in options.files)}; Ctrl-C ends", file=sys.stderr, flush=True)
            before = seen
            while (now := _changes(options.files)) == seen or now != before:  # a change, and nothing is being written any more
                before = now
                time.sleep(_GLANCE)


def _changes(files: list[Path]) -> list[tuple[int, int] | None]:
    """When each file was written, and its size; a file that is being replaced counts as changed."""
    found = [path.stat() if path.is_file() else None for path in files]
    return [None if one is None else (one.st_mtime_ns, one.st_size) for one in found]


def _is_output(options: RunOptions) -> bool:
    """Whether standard output is for JSON alone."""
    return options.json_out == STANDARD_OUTPUT


def _leave(workspace: Workspace, options: RunOptions, failed: Failure | None = None) -> None:
    """Write the requested output, also for a failed run."""
    if options.json_out is not None:
        write_json(workspace, options.json_out, failed)
    if options.figures is not None:
        write_figures(workspace, options.figures, failed)


def join(tp: int | None, engine: str | None) -> None:
    """Become one of `tp` processes that share models. Returns on the first alone; the others work for it, and exit with it."""
    if tp is not None and tp > 1:
        from neuroscope.engines import loader, usual_engine

        loader(engine or usual_engine()).join(tp)


@contextlib.contextmanager
def loading(options: RunOptions) -> Iterator[None]:
    """Use the options' aliases and defaults for the models that a block loads."""
    from neuroscope.engines import precision
    from neuroscope.models import aliases

    if options.dtype is not None:
        precision.checked(options.dtype)
    with (
        aliases.in_force(options.aliases, embedded=options.embedded),
        settings.defaults(seed=options.seed, engine=options.engine, dtype=options.dtype, device=options.device, tp=options.tp),
        _workers(options),
    ):
        yield


@contextlib.contextmanager
def prepared(options: RunOptions, transcript: Callable[[str], object] | None = None) -> Iterator[Workspace]:
    """A workspace with the options' aliases, defaults and bindings. transcript: receives what scripts show."""
    with loading(options), _server_on_demand(options):
        usual = _to_stderr if _is_output(options) else _transcript
        workspace = Workspace(transcript=transcript or usual, limits=Limits(time=options.time_limit), seed=settings.seed())
        with show.progress_shown(options.quiet):
            bind(workspace, options)
        yield workspace


@contextlib.contextmanager
def _workers(options: RunOptions) -> Iterator[None]:
    """Let instruments share their work out, among local processes or on a Ray cluster."""
    if options.workers is None and options.ray is None:
        yield
        return
    if options.workers is not None and options.ray is not None and options.ray != "local":
        raise ArgumentError("A cluster has its own number of workers.", remedy="Give --workers N, or --ray ADDRESS.")
    from neuroscope.parallel.executors import LocalWorkers, RayWorkers, working

    with contextlib.ExitStack() as stack:
        if options.ray is not None:
            address = None if options.ray == "local" else options.ray
            stack.enter_context(working(stack.enter_context(RayWorkers(address, count=options.workers))))
        elif options.workers is not None:
            stack.enter_context(working(stack.enter_context(LocalWorkers(options.workers))))
        yield


@contextlib.contextmanager
def _server_on_demand(options: RunOptions) -> Iterator[None]:
    """Start a server when a script's HTTP client first needs one and none is running; end it with the run."""
    from neuroscope_bridge.rest.substitute import DEFAULT_URL, served_by

    with contextlib.ExitStack() as ends:

        def start() -> str:
            from neuroscope_bridge.host import Host, HostOptions
            from neuroscope_bridge.rest.door import HttpDoor
            from neuroscope_bridge.rest.jobs import HttpOptions

            given = HostOptions(
                None,
                options.aliases,
                options.embedded,
                options.engine,
                options.seed,
                dtype=options.dtype,
                device=options.device,
                readable=(Path(Path.cwd().anchor),),
                download=True,
            )
            host = Host(given)
            ends.callback(host.close)
            door = HttpDoor(host, "127.0.0.1:0", HttpOptions())
            url = door.open()
            door.start()
            ends.callback(door.close)
            events.notice(f"No server is running at {DEFAULT_URL}; started one for this run at {url}.")
            return url

        with served_by(start):
            yield


def bind(workspace: Workspace, options: RunOptions) -> None:
    """Bind `model` and the `--bind` variables."""
    if options.model is not None:
        workspace.bind("model", loaded(options.model, options))
    elif options.revision is not None:
        raise ArgumentError("--revision needs a model that it is a revision of.", remedy="Add --model NAME.")
    for binding in options.bindings:
        name, equals, expression = binding.partition("=")
        if not equals or not name.strip().isidentifier() or not expression.strip():
            raise ArgumentError(
                f"{binding!r} is not a binding.",
                remedy="Write --bind NAME=EXPRESSION, for example --bind limit=12 or --bind name=\"'Paris'\".",
            )
        workspace.bind(name.strip(), workspace.run(expression, file=f"--bind {name.strip()}"))


def loaded(name: str, options: RunOptions) -> TransformerModel:
    """The model that a command names, of the revision that it names."""
    from neuroscope.models.model import TransformerModel

    return TransformerModel.from_hugging_face(name, revision=options.revision)


def _shown(workspace: Workspace, answer: Any) -> str:
    return answer.summary() if isinstance(answer, Result) else str(workspace.print_string(answer))


def _read(path: Path) -> str:
    if path == STANDARD_INPUT:
        return sys.stdin.read()
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = sorted(other.name for other in path.parent.glob(f"{path.name[:2]}*")) if path.parent.is_dir() else []
        remedy = f"There is {', '.join(near[:3])}." if near else "Check the path."
        raise FileError(f"There is no file {path}.", remedy=remedy) from error
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read: {reason(error)}.", remedy="A script is a UTF-8 text file.") from error


def _check_writable(options: RunOptions) -> None:
    if options.json_out is not None and not _is_output(options):
        check_writable(options.json_out)
    if options.figures is not None:
        check_folder(options.figures)


def _transcript(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
