"""`neuroscope`: the commands and their options."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from neuroscope.directory import missing
from neuroscope.engines.threads import governor
from neuroscope.errors import NeuroScopeError, reason, speaking
from neuroscope_bridge.cli import groups, show, values
from neuroscope_bridge.cli.options import (
    Alias,
    AsJson,
    Bind,
    Debug,
    Device,
    Dtype,
    Embedded,
    Engine,
    Figures,
    Json,
    Model,
    ModelArgument,
    Quiet,
    Ray,
    Revision,
    Seed,
    Tp,
    Workers,
)
from neuroscope_bridge.cli.preferences import chosen_settings
from neuroscope_bridge.cli.show import decoded, speak_utf_8
from neuroscope_bridge.files import FileError

_INTERRUPTED = 130

app = typer.Typer(
    name="neuroscope",
    help="Look inside language models: run documented experiments from Smalltalk scripts, or try things live.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE…", help="Scripts, run in order in one workspace; - is standard input."),
    ] = None,
    expressions: Annotated[
        list[str] | None, typer.Option("-e", "--eval", metavar="TEXT", help="Run this text after the files. May be repeated.")
    ] = None,
    model: Model = None,
    alias: Alias = None,
    bind: Bind = None,
    engine: Engine = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
    embedded: Embedded = False,
    json_out: Json = None,
    figures: Figures = None,
    seed: Seed = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", metavar="SECONDS", help="Stop a script that runs longer.")
    ] = None,
    tp: Tp = None,
    workers: Workers = None,
    ray: Ray = None,
    watch: Annotated[bool, typer.Option("--watch", help="Run again whenever a file changes; loaded models are kept.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run scripts and print the value of the last statement."""
    from neuroscope_bridge.cli.run import RunOptions, join, run_again, run_files

    if not files and not expressions:
        raise typer.BadParameter("Missing argument 'FILE': a script, - for standard input, or -e TEXT.")
    options = RunOptions(
        files=files or [],
        expressions=expressions or [],
        model=model,
        aliases=alias or [],
        bindings=bind or [],
        engine=engine,
        dtype=dtype,
        device=device,
        revision=revision,
        embedded=embedded,
        json_out=json_out,
        figures=figures,
        seed=seed,
        time_limit=time_limit,
        quiet=quiet,
        tp=tp,
        workers=workers,
        ray=ray,
    )
    join(tp, engine)
    (run_again if watch else run_files)(options)


@app.command()
def repl(
    model: Model = None,
    alias: Alias = None,
    bind: Bind = None,
    engine: Engine = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
    embedded: Embedded = False,
    seed: Seed = None,
    debug: Debug = False,
) -> None:
    """Evaluate expressions live, with history and completion."""
    from neuroscope_bridge.cli.repl import run_repl
    from neuroscope_bridge.cli.run import RunOptions

    failed = run_repl(
        RunOptions(
            files=[],
            model=model,
            aliases=alias or [],
            bindings=bind or [],
            engine=engine,
            dtype=dtype,
            device=device,
            revision=revision,
            embedded=embedded,
            seed=seed,
        ),
        debug=debug,
    )
    if failed:
        raise typer.Exit(1)


@app.command()
def models(
    alias: Alias = None,
    embedded: Embedded = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List models that can be loaded here, with targets and memory."""
    from neuroscope_bridge.cli.models import list_models

    list_models(alias or [], embedded, as_json)


@app.command()
def verify(
    model: ModelArgument,
    alias: Alias = None,
    embedded: Embedded = False,
    engine: Engine = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check that NeuroScope's runs equal the bare model's."""
    from neuroscope_bridge.cli.models import verify_model
    from neuroscope_bridge.cli.run import RunOptions

    verify_model(
        model,
        RunOptions(
            files=[], aliases=alias or [], embedded=embedded, engine=engine, dtype=dtype, device=device, revision=revision
        ),
        as_json,
    )


@app.command()
def tasks(
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the tasks, with their other names and an example."""
    from neuroscope_bridge.cli.tasks import list_tasks

    list_tasks(as_json)


@app.command()
def evaluate(
    model: ModelArgument,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help="Only this task. May be repeated.",
            autocompletion=values.completer(values.tasks),
        ),
    ] = None,
    n: Annotated[int, typer.Option("--items", "-n", metavar="N", help="Items per task.", min=2)] = 200,
    alias: Alias = None,
    embedded: Embedded = False,
    engine: Engine = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
    seed: Seed = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure every task on a model, with 95 % intervals."""
    from neuroscope_bridge.cli.run import RunOptions
    from neuroscope_bridge.cli.tasks import evaluate_model

    options = RunOptions(
        files=[],
        aliases=alias or [],
        embedded=embedded,
        engine=engine,
        dtype=dtype,
        device=device,
        revision=revision,
        seed=seed,
        quiet=quiet,
    )
    evaluate_model(model, task, n, options, as_json)


@app.command()
def analyses(
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the analyses, with question and input."""
    from neuroscope_bridge.cli.analyses import list_analyses

    list_analyses(as_json)


@app.command()
def analyze(
    model: ModelArgument,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ANALYSIS",
            help="An analysis; `neuroscope analyses` lists them.",
            autocompletion=values.completer(values.analyses),
        ),
    ],
    on: Annotated[str | None, typer.Option("--on", metavar="TEXT", help="A text, a prompt or a task's name.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Your own examples, JSONL or CSV, instead of --on.")
    ] = None,
    page: Annotated[Path | None, typer.Option("--page", metavar="FILE", help="Write the figures as one HTML page.")] = None,
    alias: Alias = None,
    embedded: Embedded = False,
    engine: Engine = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
    seed: Seed = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run an analysis on a model."""
    from neuroscope_bridge.cli.analyses import run_analysis
    from neuroscope_bridge.cli.run import RunOptions

    options = RunOptions(
        files=[],
        aliases=alias or [],
        embedded=embedded,
        engine=engine,
        dtype=dtype,
        device=device,
        revision=revision,
        seed=seed,
        quiet=quiet,
    )
    run_analysis(model, name, on, file, page, options, as_json)


app.add_typer(groups.library)
app.add_typer(groups.examples)
app.add_typer(groups.kernel)


@app.command()
def serve(
    zmq: Annotated[
        str, typer.Option("--zmq", metavar="ADDRESS", help="Address to listen on; port *: a free one; off: none.")
    ] = "tcp://127.0.0.1:5555",
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="FOLDER", help="Keys made by `neuroscope keys`; needed beyond this machine."),
    ] = None,
    http: Annotated[
        str,
        typer.Option("--http", metavar="HOST:PORT", help="Address of HTTP and the Lens page; port 0: a free one; off: none."),
    ] = "127.0.0.1:50111",
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="The bearer token of HTTP (or NEUROSCOPE_TOKEN); needed beyond this machine."
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors", metavar="ORIGIN", help="Allow requests from pages of this origin. May be repeated."),
    ] = None,
    max_answer: Annotated[
        int, typer.Option(metavar="MIB", help="Largest size of activations in one HTTP answer.", min=1)
    ] = 256,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Load a model now: `model` in sessions, the default over HTTP."),
    ] = None,
    alias: Alias = None,
    engine: Engine = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
    tp: Tp = None,
    embedded: Embedded = False,
    seed: Seed = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", metavar="FOLDER", help="Where sessions write (default: neuroscope/server in your data folder)."
        ),
    ] = None,
    allow_read: Annotated[
        list[Path] | None,
        typer.Option("--allow-read", metavar="FOLDER", help="Another folder that sessions may read. May be repeated."),
    ] = None,
    allow_download: Annotated[
        bool, typer.Option("--allow-download", help="Let sessions load models from the Hugging Face hub.")
    ] = False,
    max_sessions: Annotated[int, typer.Option(metavar="N", help="Most concurrent sessions.", min=1)] = 256,
    max_time: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Longest time for one request (default: no limit).")
    ] = None,
    max_message: Annotated[int, typer.Option(metavar="BYTES", help="Longest message.", min=1024)] = 1 << 30,
    max_memory: Annotated[
        int, typer.Option(metavar="MIB", help="Memory that the requests of one session may take; 0: no limit.", min=0)
    ] = 2048,
    max_models: Annotated[int, typer.Option(metavar="N", help="Most models in memory.", min=1)] = 8,
    allow_edits: Annotated[bool, typer.Option("--allow-edits", help="Let edits of weights be applied over HTTP.")] = False,
    load_on_demand: Annotated[
        bool,
        typer.Option(
            "--load-on-demand/--no-load-on-demand",
            help="Load a model that an HTTP request names, if it is bundled, cached or aliased.",
        ),
    ] = True,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve images and notebooks over ZeroMQ, programs over HTTP."""
    from neuroscope_bridge.cli.run import join
    from neuroscope_bridge.cli.serve import ServeOptions, token_from
    from neuroscope_bridge.cli.serve import serve as serve_until_stopped
    from neuroscope_bridge.host import HostOptions
    from neuroscope_bridge.host.limits import Limits

    limits = Limits(message=max_message, sessions=max_sessions, time=max_time, memory=max_memory << 20 or None)
    readable = tuple(path.expanduser().absolute() for path in allow_read or ())
    own = None if folder is None else folder.expanduser().absolute()
    options = HostOptions(
        model,
        alias or [],
        embedded,
        engine,
        seed,
        limits,
        dtype,
        max_models,
        own,
        readable,
        allow_download,
        device=device,
        revision=revision,
        tp=tp,
    )
    join(tp, engine)
    serve_until_stopped(
        ServeOptions(
            zmq=None if zmq.casefold() == "off" else zmq,
            keys=keys,
            http=None if http.casefold() == "off" else http,
            token=token_from(token_file),
            origins=cors or [],
            answer=max_answer << 20,
            host=options,
            quiet=quiet,
            edits=allow_edits,
            on_demand=load_on_demand,
        )
    )


@app.command()
def doctor(
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check this installation: packages, engines, folders, models, settings."""
    from neuroscope_bridge.cli.doctor import examine

    if not examine(as_json):
        raise typer.Exit(1)


@app.command()
def keys(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the keys.")],
    client: Annotated[str, typer.Option("--client", metavar="NAME", help="Name of the client.")] = "client",
    debug: Debug = False,
) -> None:
    """Make the keys that other machines need to reach a server."""
    from neuroscope_bridge.cli.serve import keys as make

    make(folder, client)


def _version(wanted: bool) -> None:
    if wanted:
        import neuroscope

        typer.echo(f"neuroscope {neuroscope.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Look inside language models."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 an error, 2 wrong usage, 130 interrupted."""
    with speaking("shell"):
        _run(arguments)


def _run(arguments: list[str] | None) -> None:
    given = [decoded(argument) for argument in sys.argv[1:]] if arguments is None else arguments
    debug = "--debug" in given
    if arguments is None:
        governor.take_over()
        speak_utf_8()
    try:
        app(args=given, default_map=chosen_settings(typer.main.get_command(app)))
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # typer turns Ctrl-C into a silent exit
            show.stderr.print("interrupted", style="bold red")
        raise
    except NeuroScopeError as error:
        if debug:
            traceback.print_exc()
        show.show_error(error)
        sys.exit(1)
    except ModuleNotFoundError as error:
        told = missing(error)
        if told is None or debug:
            raise
        show.show_error(told)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if debug:
            traceback.print_exc()
        show.show_error(FileError(f"{error.filename or 'The system'}: {reason(error)}.", remedy="--debug shows where."))
        sys.exit(1)
