"""Loading a model of which every process of a group holds a share, and what the processes besides the first do with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from transformers import AutoConfig
from transformers.distributed import DistributedConfig

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.architectures import find
from neuroscope.engines.checkpoint import Checkpoint
from neuroscope.engines.torch.parallel import ParallelEngine
from neuroscope.engines.torch.ranks import Ranks, join
from neuroscope.errors import ArgumentError

#: By number: the engines of a process that follows.
_engines: dict[int, ParallelEngine] = {}
_loaded = 0


def load(checkpoint: Checkpoint, dtype: str, size: int) -> ParallelEngine:
    """On rank 0, load a model on all ranks. Raises `ArgumentError` for a model that cannot be shared among so many."""
    global _loaded
    distribution(checkpoint, size)
    ranks = join(size)
    with ranks.lock:
        _loaded += 1
        model = ranks.call("load", checkpoint, dtype, _loaded, here=lambda: _model(checkpoint, dtype, ranks))
        return ParallelEngine(model, ranks, _loaded, part=checkpoint.part)


def follow(size: int) -> None:
    """Join the group. Returns on rank 0; on the others it performs what rank 0 calls, and exits with rank 0's program."""
    ranks = join(size)
    if not ranks.leads:
        ranks.follow(partial(_handle, ranks))


def _handle(ranks: Ranks, name: str, *arguments: Any) -> None:
    if name == "drop":
        _drop(*arguments)
    elif name == "load":
        checkpoint, dtype, number = arguments
        model = _model(checkpoint, dtype, ranks)
        _engines[number] = ParallelEngine(model, ranks, number, part=checkpoint.part)
    else:
        number, *rest = arguments
        getattr(_engines[number], f"do_{name}")(*rest)


def _drop(dropped: Sequence[tuple[int, int | None]]) -> None:
    for number, key in dropped:
        if key is None:
            _engines.pop(number, None)
        elif number in _engines:
            _engines[number].drop(key)


def _model(checkpoint: Checkpoint, dtype: str, ranks: Ranks) -> Any:
    from neuroscope.engines.torch.loading import loaded

    model = loaded(checkpoint, dtype, distributed_config=distribution(checkpoint, ranks.size))
    for kind in ("tp", "ep"):
        ranks.limit(model._mesh_manager.get_mesh(kind).get_group())
    ranks.together()
    return model


def distribution(checkpoint: Checkpoint, size: int) -> DistributedConfig:
    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False).get_text_config()
    architecture = find(config.model_type)
    anatomy = architecture.anatomy(lambda name: getattr(config, name, None))
    if architecture.moe and config.base_model_ep_plan:
        check_degree(anatomy, {"experts": anatomy.experts}, size)
        return DistributedConfig(tp_size=size, ep_size=size, ep_implementation="all_reduce")
    if not config.base_model_tp_plan:
        raise ArgumentError(
            f"transformers has no plan to share {architecture.name} among processes.",
            remedy="Load it without tp; devices= lays its layers on several devices.",
        )
    heads = {"heads": anatomy.heads, "key-value heads": anatomy.key_value_heads}
    check_degree(anatomy, {**heads, "neurons of a layer": anatomy.d_mlp}, size)
    return DistributedConfig(tp_size=size)


def check_degree(anatomy: Anatomy, counts: dict[str, int], size: int) -> None:
    """Raises `ArgumentError`, with the degrees that fit, if a count does not divide."""
    wrong = [f"{count} {what}" for what, count in counts.items() if count % size]
    if wrong:
        fit = [str(n) for n in range(1, min(counts.values()) + 1) if not any(count % n for count in counts.values())]
        raise ArgumentError(
            f"{anatomy.architecture} cannot be shared among {size} processes: {' and '.join(wrong)} do not divide.",
            remedy=f"tp may be {', '.join(fit)}.",
        )
