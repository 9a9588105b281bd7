"""Extensions of models: runs with gradients, losses token by token, and runs under the names of TransformerLens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from neuroscope.engines.patterns import expanded
from neuroscope.engines.protocol import ALL_LOGITS, TokenBatch
from neuroscope.engines.sites import Component, Site
from neuroscope.errors import ArgumentError
from neuroscope.extensions import extends
from neuroscope.hooks.hook import ActivationHook
from neuroscope.models.model import TransformerModel
from neuroscope.models.tokenized import Prompts
from neuroscope.tasks.metrics import MetricPrompt, PromptMetric, arguments_of, metric_name
from neuroscope.tensors.cache import ActivationCache
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.vocabulary import python_only


@extends(TransformerModel)
class RunsOfModels:
    """Runs that are more than a pass."""

    def run_with_gradients(
        self, prompts: Prompts, metric: Callable[..., Any], sites: Sequence[str] | str | None = None
    ) -> ActivationCache:
        """Activations at sites, and in `gradients` those of a metric with respect to them, hooks included.

        metric: a function of one prompt's logits, an `ActivationTensor` (1, positions, vocabulary), to one number. sites: as in
        `run_with_caching`. Raises `ArgumentError` for a metric without a gradient.
        """
        model = cast(TransformerModel, self)
        if not callable(metric):
            raise ArgumentError(
                f"The metric {metric!r} is not a function of the logits.",
                remedy="Give one: lambda logits: logits[0, -1, token].",
            )
        arguments_of(metric)
        batch = model.encode(prompts)
        texts = [model.token_text_rows(batch)[row] for row in range(batch.rows)]
        given = [prompts] if isinstance(prompts, str) else list(prompts)
        names = given if all(isinstance(one, str) for one in given) else ["".join(row) for row in texts]
        asked = tuple(
            MetricPrompt(row, names[row], None, None, None, None, None, tuple(batch.ids[row][batch.real[row]].tolist()))
            for row in range(batch.rows)
        )
        none = np.full(batch.rows, -1, dtype=np.int64)
        function = PromptMetric(metric_name(metric), none, none, function=metric, prompts=asked)
        prompt = prompts if isinstance(prompts, str) else None
        with model.hook_manager.edits(prompt=prompt, task_type=model.task_type) as edits:
            found = model.engine.gradients(
                batch,
                function.compute(model.engine, traced=True),
                model.capturable(sites, batch),
                edits=edits,
                logits=ALL_LOGITS,
            )
        return ActivationCache(
            found.values, model.engine.ops, texts, batch.real, engine=model.engine, gradients=found.gradients
        )

    def loss_per_token(self, prompts: Prompts) -> ActivationTensor:
        """The loss in nats of each token but the first, hooks included: (rows, positions − 1). `mean` is the loss.

        Raises `ArgumentError` for a text of one token.
        """
        model = cast(TransformerModel, self)
        batch = model.encode(prompts)
        if int(batch.lengths.min()) < 2:
            raise ArgumentError("A text of one token has no loss.", remedy="Give at least two tokens.")
        ops = model.engine.ops
        logs = ops.to_numpy(ops.log_softmax(model.run(batch).logits))
        picked = -np.take_along_axis(logs[:, :-1], batch.ids[:, 1:, None], 2)[..., 0]
        real = batch.real[:, 1:]
        return ActivationTensor(ops.asarray(np.where(real, picked, 0.0)), ops, None if real.all() else real)

    def loss(self, prompts: Prompts) -> float:
        """The mean loss in nats of the tokens of texts, the first of each left out, hooks included."""
        return float(self.loss_per_token(prompts).mean())

    @python_only
    def run_with_cache(
        self, prompts: Prompts, names_filter: Any = None, **others: Any
    ) -> tuple[ActivationTensor, ActivationCache]:
        """TransformerLens' name: the logits (rows, positions, vocabulary), and the cache of `run_with_caching`.

        names_filter: sites and patterns, or a function of a site's text.
        """
        if others:
            raise ArgumentError(
                f"run_with_cache has no argument {next(iter(others))!r} here.",
                remedy="Give prompts and sites: model.run_with_cache(text, ['5.residual', '*.attentionPattern']).",
            )
        model = cast(TransformerModel, self)
        sites: Any = names_filter
        if callable(names_filter):
            kinds = [kind for kind in Component if kind is not Component.ROUTER or model.architecture.experts]
            names = [site for kind in kinds for site in expanded(_whole(kind), model.architecture)]
            sites = [site for site in names if names_filter(str(site))]
        batch = model.encode(prompts)
        wanted = model.capturable(sites, batch)
        run = model.run(batch, wanted)
        cache = ActivationCache(
            run.activations, model.engine.ops, model.token_text_rows(batch), batch.real, engine=model.engine
        )
        return ActivationTensor(run.logits, model.engine.ops, _padded(batch)), cache

    @python_only
    def run_with_hooks(self, prompts: Prompts, fwd_hooks: Iterable[tuple[Any, Callable[..., Any]]] = ()) -> ActivationTensor:
        """TransformerLens' name: the logits of a run in which functions edit activations at sites.

        fwd_hooks: pairs of a site, or a pattern of sites, and a function of the activations; a second argument is the hook. It
        answers the new activations, or edits those it was given in place and answers None.
        """
        model = cast(TransformerModel, self)
        batch = model.encode(prompts)
        hooks = []
        for pair in fwd_hooks:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not callable(pair[1]):
                raise ArgumentError(
                    f"{pair!r:.80} is no hook.", remedy="Give pairs of site and function: [('5.residual', lambda a: a * 0)]."
                )
            for site in model.capturable(pair[0], batch):
                if site.neuron is not None:
                    raise ArgumentError(
                        f"{site}: a function edits whole components.",
                        remedy=f"Name {replace(site, neuron=None)}, and edit [..., {site.neuron}] of what the function is given.",
                    )
                hooks.append(
                    ActivationHook(
                        site.layer,
                        site.component,
                        _in_place(pair[1], site),
                        head=site.head,
                        position=site.position,
                    )
                )
        with model.hook_manager.temporarily(*hooks):
            return ActivationTensor(model.run(batch).logits, model.engine.ops, _padded(batch))

    @python_only
    def to_tokens(self, texts: Prompts) -> Any:
        """TransformerLens' name: the ids of texts, a numpy array (rows, positions), padded on the right; with the special tokens
        that the tokenizer puts before a text.
        """
        return cast(TransformerModel, self).encode(texts).ids

    @python_only
    def to_str_tokens(self, text: str) -> list[str]:
        """TransformerLens' name for `tokens`."""
        return cast(TransformerModel, self).tokens(text)

    @python_only
    def to_single_token(self, text: str) -> int:
        """TransformerLens' name for `token`."""
        return cast(TransformerModel, self).token(text)

    @python_only
    def to_string(self, ids: Any) -> Any:
        """TransformerLens' name: ids (positions,) as text, or (rows, positions) as texts; special tokens included."""
        model, array = cast(TransformerModel, self), np.asarray(ids)
        if array.ndim > 2 or not np.issubdtype(array.dtype, np.integer):
            raise ArgumentError(
                f"{ids!r:.60} are no token ids.", remedy="Give whole numbers (positions,) or (rows, positions)."
            )
        texts = [model.tokenizer.decode(row.tolist()) for row in np.atleast_2d(array)]
        return texts if array.ndim == 2 else texts[0]


def _whole(kind: Component) -> str:
    return kind.value if kind in (Component.EMBEDDING, Component.LOGITS) else f"*.{kind.value}"


def _padded(batch: TokenBatch) -> Any:
    return None if batch.real.all() else batch.real[:, :, None]


def _in_place(function: Callable[..., Any], site: Site) -> Callable[[ActivationTensor], Any]:
    count = arguments_of(function)

    def action(activations: ActivationTensor) -> Any:
        found = function(*(activations, site)[:count])
        return activations if found is None else found

    return action
