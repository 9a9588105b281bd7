"""Arguments of a wrong kind: which one it was, and what it should have been."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pytest

import neuroscope
from neuroscope.errors import ArgumentError, ModelNotFoundError
from neuroscope.kinds import described, fits, naming_wrong_kinds
from neuroscope.models.model import TransformerModel
from neuroscope.vocabulary import find, public
from tests import tiny


class _Shape(Protocol):
    width: int


@pytest.mark.parametrize(
    ("kind", "words", "right", "wrong"),
    [
        (str, "a text", ["a", np.str_("a"), Path("a")], [5, None, ["a"]]),
        (int, "a whole number", [5, np.int64(5)], [5.0, "5", True, None]),
        (float, "a number", [5, 5.5, Fraction(1, 2), np.float32(1)], ["5", True, 5j]),
        (bool, "true or false", [True], [1, "yes"]),
        (str | None, "a text or None", ["a", None], [5]),
        (Sequence[str], "a list of texts", [["a"], ("a", "b"), [], np.array(["a"])], ["a", {"a": "b"}, ["a", 5], 5]),
        (Sequence[int] | str, "a list of whole numbers or a text", ["a", [1]], [[1.5], None]),
        (tuple[int, str], "a list of a whole number, a text", [(1, "a")], [(1,), ("a", 1), 5]),
        (Mapping[str, int], "a dictionary", [{"a": 1}, {}], [{"a": "b"}, [("a", 1)]]),
        (Callable[[], None], "a function", [print], [5]),
        (Literal["a", "b"], "'a' or 'b'", ["a"], ["c", 5]),
        (TransformerModel, "a TransformerModel", [], ["gpt2", 5]),
        (ArgumentError, "an ArgumentError", [ArgumentError("x")], [5]),
        (Any, "a value", [5, None], []),
        (_Shape, "a _Shape", [5], []),
    ],
)
def test_what_an_annotation_allows(kind: Any, words: str, right: list[Any], wrong: list[Any]) -> None:
    assert described(kind) == words
    assert all(fits(value, kind) for value in right)
    assert not any(fits(value, kind) for value in wrong)


def test_only_an_argument_that_does_not_fit_is_blamed() -> None:
    def half(number: float, of: str = "") -> float:
        return number / 2 if of == "" else number / of  # type: ignore[operator]

    called = naming_wrong_kinds(half, find)
    assert called(3) == 1.5
    with pytest.raises(ArgumentError, match=r"number of .*half is a number, not 'a'\."):
        called("a")
    with pytest.raises(TypeError, match="unsupported operand"):
        called(3, "a")  # a text, as annotated: the fault is its own
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        called()


@public
class _Told:
    """Raises an error of its own, which goes before what could be said of its argument."""

    def tell(self, name: TransformerModel) -> None:
        raise ModelNotFoundError(f"nothing at {name}")


def test_errors_that_were_raised_on_purpose_stay() -> None:
    untyped: Any = 5
    with pytest.raises(ModelNotFoundError):
        _Told().tell(untyped)


MODEL = tiny.model()
V = neuroscope
CALLS: dict[str, Callable[[], Any]] = {
    "model of SteeringVectors.load is a TransformerModel or None": lambda: V.SteeringVectors.load("formal_style", 5),
    "uses its own model": lambda: V.SteeringVectors(MODEL).load("formal_style", tiny.model("llama")),
    "path of SteeringVectors.read is a text": lambda: V.SteeringVectors(MODEL).read(5),
    "examples of CircuitFinder.find_circuit is a Dataset or a list of Examples": (
        lambda: V.CircuitFinder(MODEL).find_circuit("induction", examples=5)
    ),
    "examples of CircuitFinder.find_circuit .* Examples or None, not .1": lambda: V.CircuitFinder(MODEL).find_circuit(
        "induction", examples=[1]
    ),
    "steps of CircuitFinder is a whole number": lambda: V.CircuitFinder(MODEL, steps="a"),
    "pairs of ActivationPatcher.residual_map is": lambda: V.ActivationPatcher(MODEL).residual_map(5),
    "alpha of CircuitDiscovery is a number": lambda: V.CircuitDiscovery(alpha="a"),
    "seeds of CircuitQualityAssurance is a whole number": lambda: V.CircuitQualityAssurance(seeds="a"),
    "level of NeuronAnalyzer is a number": lambda: V.NeuronAnalyzer(MODEL, level="a"),
    "controls of NeuronAblator is a whole number": lambda: V.NeuronAblator(MODEL, controls=[1]),
    "domains of FeatureEntanglementAnalyzer.find_entanglement is": (
        lambda: V.FeatureEntanglementAnalyzer(MODEL).find_entanglement({"a": 1})
    ),
    "examples of Dataset is a list of Examples": lambda: V.Dataset(5),
    "path of Dataset.from_file is a text": lambda: V.Dataset.from_file(None),
    "n of Dataset.take is a whole number": lambda: V.Dataset.load("ioi", n=3).take("a"),
    "model of Dataset.for_model is a TransformerModel": lambda: V.Dataset.load("ioi", n=3).for_model("gpt2"),
    "sites of TransformerModel.run_with_caching is a list of texts": lambda: MODEL.run_with_caching("w5", 5),
    "count of TransformerModel.predictions is a whole number": lambda: MODEL.predictions("w5", "many"),
    "site of TransformerModel.weights is a WeightSite or a text": lambda: MODEL.weights(5),
    "5 is no floating type": lambda: V.TransformerModel.from_hugging_face("x", dtype=5),
}


AT_THE_DOOR: dict[str, Callable[[], Any]] = {
    "max_tokens of TransformerModel.generate is a whole number or None, not 2.5": lambda: MODEL.generate("w5", max_tokens=2.5),
    "max_tokens of TransformerModel.generate is .* not True": lambda: MODEL.generate("w5", max_tokens=True),
    "prompt of TransformerModel.generate is a text, not .'w5'.": lambda: MODEL.generate(["w5"]),
    "prompt of TransformerModel.generate is a text, not b'w5'": lambda: MODEL.generate(b"w5"),
    "temperature of TransformerModel.generate is a number, not NaN": lambda: MODEL.generate("w5", temperature=float("nan")),
    "half of a surrogate pair": lambda: MODEL.generate("w5 \ud800"),
    "prompts of TransformerModel.run_with_caching is .*not None": lambda: MODEL.run_with_caching(None),
    "prompts of TransformerModel.run_with_caching is .*not .'w5', None.": lambda: MODEL.run_with_caching(["w5", None]),
    "prompts of TransformerModel.run_with_caching is .*not {'w5': 1}": lambda: MODEL.run_with_caching({"w5": 1}),
    "count of at least 1": lambda: MODEL.predictions("w5", 0),
    "head of ActivationHook is a whole number or None, not 1.5": (
        lambda: V.ActivationHook(1, "headOutput", lambda a: a, head=1.5)
    ),
    "position of ActivationHook is a whole number or None, not '1'": (
        lambda: V.ActivationHook(1, "residual", lambda a: a, position="1")
    ),
    "A seed is a whole number from zero": lambda: V.CircuitFinder(MODEL, seed=-1),
    "target of CircuitFinder is a number, not NaN": lambda: V.CircuitFinder(MODEL, target=float("nan")),
    "random_circuits must be a whole number from 0": lambda: V.CircuitFinder(MODEL, random_circuits=-1),
    "controls of ActivationPatcher is a whole number, not 1.5": lambda: V.ActivationPatcher(MODEL, controls=1.5),
    "name of TransformerModel.from_hugging_face is a text, not None": lambda: V.TransformerModel.from_hugging_face(None),
    "path of TransformerModel.save is a text, not None": lambda: MODEL.save(None),
    "positive of SteeringVectors.define is a list of texts or None, not 'w5'": (
        lambda: V.SteeringVectors(MODEL).define("mine", "w5", "w6")
    ),
}


@pytest.mark.parametrize("told", AT_THE_DOOR)
def test_plain_values_of_a_wrong_kind_are_refused_at_the_call(told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        AT_THE_DOOR[told]()


@pytest.mark.parametrize("told", CALLS)
def test_the_vocabulary_names_an_argument_of_a_wrong_kind(told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        CALLS[told]()


def test_an_instance_may_be_given_its_own_model() -> None:
    vectors = V.SteeringVectors(MODEL)
    assert vectors.load("formal_style", MODEL) is vectors.load("formal_style") is V.SteeringVectors.load("formal_style", MODEL)
    assert vectors.load("formal_style", MODEL, 0) is vectors.load("formal_style", layer=0)
