"""`neuroscope library`, `examples` and `kernel`: the groups of commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroscope_bridge.cli import values
from neuroscope_bridge.cli.options import (
    Alias,
    AsJson,
    Bind,
    Debug,
    Device,
    Dtype,
    Engine,
    Figures,
    Json,
    Quiet,
    Ray,
    Revision,
    Seed,
    Workers,
)

Number = Annotated[
    int,
    typer.Argument(metavar="NUMBER", help="The experiment's number.", autocompletion=values.completer(values.experiments)),
]

library = typer.Typer(name="library", help="Named circuits in .circuit files.", no_args_is_help=True)


@library.command("list")
def library_list(
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="Only circuits whose name, task or model contains this.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the circuits with their figures."""
    from neuroscope_bridge.cli.library import list_circuits

    list_circuits(text, as_json)


@library.command("show")
def library_show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A circuit's name.", autocompletion=values.completer(values.circuits))
    ],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show a circuit's file."""
    from neuroscope_bridge.cli.library import show_circuit

    show_circuit(name, as_json)


@library.command("verify")
def library_verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME…]", help="Circuits (default all).", autocompletion=values.completer(values.circuits)),
    ] = None,
    alias: Alias = None,
    engine: Engine = None,
    dtype: Dtype = None,
    device: Device = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure circuits again and compare with their files."""
    from neuroscope_bridge.cli.library import verify_circuits
    from neuroscope_bridge.cli.run import RunOptions

    if not verify_circuits(
        names or [], RunOptions(files=[], aliases=alias or [], engine=engine, dtype=dtype, device=device, quiet=quiet)
    ):
        raise typer.Exit(1)


@library.command("build")
def library_build(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME…]", help="Circuits to build (default all).")] = None,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model to find them on.")] = "bundled:gpt2-medium",
    alias: Alias = None,
    engine: Engine = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
    seed: Seed = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the library's circuits on a model and store them."""
    from neuroscope_bridge.cli.library import build_library
    from neuroscope_bridge.cli.run import RunOptions

    given = RunOptions(
        files=[],
        aliases=alias or [],
        engine=engine,
        dtype=dtype,
        device=device,
        revision=revision,
        seed=seed,
        quiet=quiet,
    )
    build_library(model, names or [], given)


examples = typer.Typer(name="examples", help="The documented experiments by number.", no_args_is_help=True)


@examples.command("list")
def examples_list(
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the experiments, and which of them run."""
    from neuroscope_bridge.cli.examples import list_examples

    list_examples(as_json)


@examples.command("show")
def examples_show(
    number: Number,
    debug: Debug = False,
) -> None:
    """Print an experiment's script, and the companion that calls it."""
    from neuroscope_bridge.cli.examples import show_example

    show_example(number)


@examples.command("copy")
def examples_copy(
    number: Number,
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to (default: here).")] = Path(),
    debug: Debug = False,
) -> None:
    """Copy an experiment's files, to change and to run them."""
    from neuroscope_bridge.cli.examples import copy_example

    copy_example(number, folder)


@examples.command("run")
def examples_run(
    number: Number,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Bind this model to `model` (default gpt2-medium).")
    ] = None,
    alias: Alias = None,
    bind: Bind = None,
    engine: Engine = None,
    dtype: Dtype = None,
    device: Device = None,
    revision: Revision = None,
    embedded: Annotated[bool, typer.Option(help="Use the small bundled models instead of gpt2-medium and gpt-oss-20b.")] = True,
    json_out: Json = None,
    figures: Figures = None,
    seed: Seed = None,
    workers: Workers = None,
    ray: Ray = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run an experiment unchanged, with everything it needs, on the models that ship."""
    from neuroscope_bridge.cli.examples import run_example
    from neuroscope_bridge.cli.run import RunOptions

    options = RunOptions(
        files=[],
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
        quiet=quiet,
        workers=workers,
        ray=ray,
    )
    run_example(number, options)


kernel = typer.Typer(name="kernel", help="The dialect in Jupyter notebooks.", no_args_is_help=True)


@kernel.command("install")
def kernel_install(
    prefix: Annotated[
        Path | None, typer.Option("--prefix", metavar="FOLDER", help="Install below this folder instead of the user's.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Install the kernel, so that notebooks offer NeuroScope."""
    from neuroscope_bridge.kernel.install import install

    typer.echo(install(prefix))


@kernel.command("uninstall")
def kernel_uninstall(
    prefix: Annotated[Path | None, typer.Option("--prefix", metavar="FOLDER", help="The folder given to `install`.")] = None,
    debug: Debug = False,
) -> None:
    """Remove the kernel."""
    from neuroscope_bridge.kernel.install import uninstall

    typer.echo(uninstall(prefix))
