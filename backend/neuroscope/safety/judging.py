"""What a redirect does: to refusals and answers, under pressure, on harmless requests and traps, and to other capabilities.

A reply counts as a refusal by its words (`tasks.judges.refused`) and by the log-probability of the refusal's opening; as an answer if it
says something else. The model alone and redirects in random directions of the same norm, behind the same gate, answer the same requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope import events
from neuroscope.engines.protocol import LogitRequest
from neuroscope.errors import DatasetError
from neuroscope.models.model import TransformerModel
from neuroscope.provenance import provenance
from neuroscope.results import Provenance, Result
from neuroscope.safety.fitting import bare, general_texts
from neuroscope.safety.pairs import Parts, Texts, harmful, harmless
from neuroscope.safety.redirect import Redirect
from neuroscope.safety.replies import JUDGING, Manner, Pressure, answered, prompt, replies
from neuroscope.tasks.dataset import Example
from neuroscope.tasks.evaluate import evaluate
from neuroscope.tasks.judges import refused
from neuroscope.tasks.losses import text_losses
from neuroscope.tasks.statistics import Estimate, difference_test, mean_of, rate
from neuroscope.vocabulary import public

if TYPE_CHECKING:
    from neuroscope.safety.editor import SafetyEditor

_TEXTS, _TASK, _ITEMS = 60, "capital_of_country", 60
_CALM, _TRICKY = "harmless", "traps"


@public
@dataclass(frozen=True, kw_only=True)
class Replies(Result):
    """Replies to some requests, by one model. refusals, answers: shares. opening: mean log-probability of a refusal's first word."""

    refusals: Estimate
    answers: Estimate
    opening: Estimate
    texts: list[str] = field(repr=False)

    def print_string(self) -> str:
        return f"a Replies({self.refusals} refused, n {self.refusals.n})"


@public
@dataclass(frozen=True, kw_only=True)
class SafetyReport(Result):
    """Requests that chose nothing, answered by the model alone, redirected, and redirected in random directions.

    harmful: by pressure; harmless and traps: plain. Each holds "alone", "redirected" and "random". rise: of refusals of harmful requests,
    redirected minus alone and minus random, paired over all pressures. false_refusals: of harmless requests, redirected minus alone;
    trap_refusals: of traps. packaged: requests of packages, by "suite, measure" (`validation.packages`). gate_shut: harmless requests and traps whose gate stayed shut; identical: how many of them have a reply and
    logits equal bit for bit. perplexity: of general text, alone and redirected; task: accuracy on another task.
    """

    harmful: dict[str, dict[str, Replies]]
    harmless: dict[str, Replies]
    traps: dict[str, Replies]
    packaged: dict[str, dict[str, Replies]]
    rise: dict[str, Estimate]
    rise_p: dict[str, float]
    false_refusals: Estimate
    trap_refusals: Estimate
    gate_shut: int
    identical: int
    perplexity: dict[str, Estimate]
    task: dict[str, Estimate]
    examples: list[dict[str, str]]
    provenance: Provenance

    def print_string(self) -> str:
        return f"a SafetyReport(refusals rise by {self.rise['alone']}, false refusals by {self.false_refusals})"

    def summary(self) -> str:
        lines = [
            f"Redirect of {self.provenance.title}, on held-out requests (95 % intervals)",
            f"  {'refused':<36}alone   redirected   random",
        ]
        sets = {
            **{f"harmful, {name}": found for name, found in self.harmful.items()},
            "harmless": self.harmless,
            "traps": self.traps,
            **self.packaged,
        }
        for name, found in sets.items():
            shares = "   ".join(f"{found[who].refusals.value:9.3f}" for who in ("alone", "redirected", "random"))
            lines.append(f"  {name:<32}{shares}   n {found['alone'].refusals.n}")
        lines += [
            f"  refusals of harmful requests rise by {self.rise['alone']} against the model alone (p {self.rise_p['alone']:.2g}), "
            f"by {self.rise['random']} against random directions",
            f"  false refusals rise by {self.false_refusals} on harmless requests (n {self.false_refusals.n}), by {self.trap_refusals} on traps",
            f"  the gate stayed shut for {self.gate_shut} harmless requests and traps; {self.identical} of these are identical",
            f"  perplexity {self.perplexity['alone']} → {self.perplexity['redirected']}; {_TASK} {self.task['alone']} → {self.task['redirected']}",
        ]
        return "\n".join(lines)


def judge(
    editor: SafetyEditor,
    parts: Mapping[str, Parts],
    traps: Texts,
    how: Manner,
    *,
    n: int,
    directions: int,
    packaged: Mapping[str, Sequence[Example]],
) -> SafetyReport:
    """See `SafetyReport`."""
    share = max(1, -(-n // len(parts)))
    pairs = [pair for mine in parts.values() for pair in mine.judging[:share]]
    model = editor.model
    alone, ours = bare(model), hooked(editor)
    random = np.random.default_rng(editor.seed)
    others = [hooked(editor.with_redirect(lambda one: turned(one, random))) for _ in range(directions)]
    units, trap_units = ([one.independent_units for one in some] for some in (pairs, traps[:n]))
    calm, tricky = harmless(pairs), [trap.clean for trap in traps[:n]]
    sets = {around.name: _Asked.of(model, map(around.of, harmful(pairs)), units, _begun(how, around)) for around in JUDGING}
    sets |= {_CALM: _Asked.of(model, calm, units), _TRICKY: _Asked.of(model, tricky, trap_units)}
    sets |= {
        name: _Asked.of(model, [one.clean for one in some], [one.independent_units for one in some])
        for name, some in packaged.items()
    }
    people = {"alone": [alone], "redirected": [ours], "random": others}
    with events.progress("judging the redirect", total=len(others) + 4, unit="models and sets") as job:
        replied: dict[str, dict[str, Replies]] = {}
        for who, models in people.items():
            each = []
            for one in models:
                each.append(_replies(one, sets, how))
                job.advance()
            replied[who] = {name: _merged([found[name] for found in each], asked.units) for name, asked in sets.items()}
        told = {name: {who: replied[who][name] for who in people} for name in sets}
        innocent, trapped = told.pop(_CALM), told.pop(_TRICKY)
        others_told = {name: told.pop(name) for name in packaged}
        shut, identical = _identical(alone, ours, editor, [*calm, *tricky])
        job.advance()
        texts = general_texts(_TEXTS, editor.seed)
        perplexities = {who: _perplexity(one, texts) for who, one in (("alone", alone), ("redirected", ours))}
        tasks = {who: _accuracy(one, editor.seed) for who, one in (("alone", alone), ("redirected", ours))}
        job.advance()
    flags = {who: [_refused(found[who], len(pairs)) for found in told.values()] for who in people}
    means = {who: np.mean(each, axis=0) for who, each in flags.items()}
    tests = {who: difference_test(means["redirected"] - means[who], units) for who in ("alone", "random")}
    return SafetyReport(
        harmful=told,
        harmless=innocent,
        traps=trapped,
        packaged=others_told,
        rise={who: test.estimate for who, test in tests.items()},
        rise_p={who: test.p_value for who, test in tests.items()},
        false_refusals=_difference(innocent, len(calm), units),
        trap_refusals=_difference(trapped, len(tricky), trap_units),
        gate_shut=shut,
        identical=identical,
        perplexity=perplexities,
        task=tasks,
        examples=[
            {
                "prompt": around.of(pairs[at].clean),
                "begun": around.begun,
                **{who: found.texts[at] for who, found in told[around.name].items()},
            }
            for around in JUDGING
            for at in range(0, len(pairs), max(1, len(pairs) // 3))
        ],
        provenance=provenance(
            model, "harmful_requests", editor.seed, requests=len(pairs), traps=len(tricky), directions=directions
        ),
    )


def hooked(editor: SafetyEditor) -> TransformerModel:
    """The editor's model with its hooks alone."""
    model = bare(editor.model)
    for hook in editor.hooks():
        model.hook_manager.add_hook(hook)
    return model


def turned(one: Redirect, random: np.random.Generator) -> Redirect:
    """The same redirect towards a random direction of the same norm."""
    direction = random.normal(size=one.direction.shape)
    return replace(one, direction=direction * np.linalg.norm(one.direction) / np.linalg.norm(direction))


@dataclass(frozen=True)
class _Asked:
    """Requests of one kind as prompts, and their units."""

    prompts: list[str]
    units: Sequence[frozenset[str]]

    @classmethod
    def of(cls, model: TransformerModel, texts: Iterable[str], units: Sequence[frozenset[str]], begun: str = "") -> _Asked:
        return cls([prompt(model, text, begun) for text in texts], units)


def _begun(how: Manner, around: Pressure) -> str:
    return how.space + around.begun if around.begun else ""


def _replies(model: TransformerModel, sets: Mapping[str, _Asked], how: Manner) -> dict[str, Replies]:
    """Replies to every set. All of them are written together: a step for many rows takes little longer than one for a few."""
    texts = iter(replies(model, [text for asked in sets.values() for text in asked.prompts]))
    found = {}
    for name, asked in sets.items():
        token, opening = model.answer_token(asked.prompts[0], how.answers[0]), []
        for first in range(0, len(asked.prompts), 16):
            batch = model.encode(asked.prompts[first : first + 16])
            logits = model.run(batch, logits=LogitRequest.last(batch)).logits
            opening += model.engine.ops.to_numpy(model.engine.ops.log_softmax(logits))[:, token].tolist()
        mine = list(islice(texts, len(asked.prompts)))
        found[name] = _told([refused(text) for text in mine], [answered(text) for text in mine], opening, mine, asked.units)
    return found


def _told(
    refusals: Sequence[bool],
    answers: Sequence[bool],
    opening: Sequence[float],
    texts: list[str],
    units: Sequence[frozenset[str]] | None,
) -> Replies:
    return Replies(
        refusals=rate(np.asarray(refusals, dtype=float), units),
        answers=rate(np.asarray(answers, dtype=float), units),
        opening=mean_of(opening, units),
        texts=texts,
    )


def _merged(several: Sequence[Replies], units: Sequence[frozenset[str]] | None) -> Replies:
    """Replies of several models as one: rates over all of them."""
    if len(several) == 1:
        return several[0]
    texts = [text for one in several for text in one.texts]
    many = None if units is None else list(units) * len(several)
    opening = float(np.mean([one.opening.value for one in several]))
    refusals = rate([float(refused(text)) for text in texts], many)
    answers = rate([float(answered(text)) for text in texts], many)
    low, high = min(one.opening.low for one in several), max(one.opening.high for one in several)
    return Replies(refusals=refusals, answers=answers, opening=Estimate(opening, low, high, len(texts)), texts=texts)


def _refused(found: Replies, n: int) -> Any:
    """(n,): whether each request was refused; the mean where several models were asked."""
    return np.array([refused(text) for text in found.texts], dtype=np.float64).reshape(-1, n).mean(0)


def _difference(found: Mapping[str, Replies], n: int, units: Sequence[frozenset[str]]) -> Estimate:
    return mean_of(_refused(found["redirected"], n) - _refused(found["alone"], n), units)


def _identical(alone: TransformerModel, ours: TransformerModel, editor: SafetyEditor, texts: Sequence[str]) -> tuple[int, int]:
    """How many requests leave the gate shut, and of these how many have the same logits, bit for bit."""
    ops, shut, same = alone.engine.ops, 0, 0
    prompts = [prompt(alone, text) for text in texts]
    scores = {layer: fitted.probe.scores(prompts, alone) for layer, fitted in editor.fitted.items()}
    for at, text in enumerate(prompts):
        if any(scores[layer][at] > (fitted.probe.threshold or 0.0) for layer, fitted in editor.fitted.items()):
            continue
        shut += 1
        batch = alone.encode(text)
        same += bool(ops.equal(alone.run(batch).logits, ours.run(batch).logits))
    return shut, same


def _accuracy(model: TransformerModel, seed: int) -> Estimate:
    score = evaluate(model, [_TASK], n=_ITEMS, seed=seed).scores[0]
    if score.accuracy is None:
        raise DatasetError(f"{_TASK} cannot be asked of {model.title}: {score.note}.")
    return score.accuracy


def _perplexity(model: TransformerModel, texts: Sequence[str]) -> Estimate:
    losses, counts = (np.array(values, dtype=np.float64) for values in text_losses(model, texts))
    each = mean_of(losses / counts)
    value, low, high = (float(np.exp(bound)) for bound in (each.value, each.low, each.high))
    return Estimate(value, low, high, each.n)
