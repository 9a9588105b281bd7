"""Options that several commands share, with their environment variables and the values that the shell completes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroscope_bridge.cli import values

Alias = Annotated[
    list[str] | None,
    typer.Option("--alias", metavar="NAME=TARGET", help="Use the model TARGET for NAME. May be repeated."),
]
Embedded = Annotated[
    bool, typer.Option("--embedded", help="Use the small bundled models instead of gpt2-medium and gpt-oss-20b.")
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Tensor engine: torch or mlx. By default mlx on Apple silicon, else torch.",
        envvar="NEUROSCOPE_ENGINE",
        autocompletion=values.completer(values.engines),
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Floating type of models: float32 (the default), bfloat16 or float16.",
        envvar="NEUROSCOPE_DTYPE",
        autocompletion=values.completer(lambda: ["float32", "bfloat16", "float16"]),
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Device of models: cpu, cuda, cuda:1, mps, gpu (default: the engine's).",
        envvar="NEUROSCOPE_DEVICE",
        autocompletion=values.completer(lambda: ["cpu", "cuda", "mps", "gpu"]),
    ),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", metavar="NAME", help="Branch, tag or commit of the model's repository on the hub."),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Random seed (default 0).", envvar="NEUROSCOPE_SEED")]
Tp = Annotated[
    int | None,
    typer.Option("--tp", metavar="N", help="Share each layer among the N processes that torchrun started.", min=1),
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="Share sweeps, discovery and ablations among N processes.")
]
Ray = Annotated[
    str | None, typer.Option("--ray", metavar="ADDRESS", help="Share them on a Ray cluster; `local` starts one here.")
]
Bind = Annotated[
    list[str] | None,
    typer.Option(
        "--bind",
        metavar="VAR=EXPRESSION",
        help="Bind a workspace variable to the value of a Smalltalk expression. May be repeated.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Load a model and bind it to the variable `model`.",
        autocompletion=values.completer(values.models),
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Name, folder or GGUF file.", autocompletion=values.completer(values.models)),
]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="OUT", help="Write variables and provenance to this file as JSON; - is standard output."),
]
Figures = Annotated[
    Path | None, typer.Option("--figures", metavar="DIR", help="Write a page for each result that has figures.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show Python tracebacks of errors.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
