"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Alias = Annotated[
    list[str] | None,
    typer.Option("--alias", metavar="NAME=TARGET", help="Use the model TARGET for NAME. May be repeated."),
]
Embedded = Annotated[
    bool, typer.Option("--embedded", help="Use the small bundled models instead of gpt2-medium and gpt-oss-20b.")
]
Engine = Annotated[
    str | None,
    typer.Option("--engine", metavar="NAME", help="Tensor engine: torch or mlx. By default mlx on Apple silicon, else torch."),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Floating type of models: float32 (the default), bfloat16 or float16.",
        autocompletion=lambda: ["float32", "bfloat16", "float16"],
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Random seed (default 0).")]
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
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Load a model and bind it to the variable `model`.")]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="OUT", help="Write variables and provenance to this file as JSON.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show Python tracebacks of errors.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
