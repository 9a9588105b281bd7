"""Base class of the experiments on one model."""

from __future__ import annotations

from neuroscope import settings
from neuroscope.errors import ArgumentError
from neuroscope.models.model import TransformerModel


class Instrument:
    """Works on one model: `for: aModel`. Raises `ArgumentError` if that is not a TransformerModel."""

    def __init__(self, model: TransformerModel, seed: int | None) -> None:
        if not isinstance(model, TransformerModel):
            raise ArgumentError(f"{self._named()[0].upper()}{self._named()[1:]} works on a TransformerModel, not {model!r}.")
        self._model = model
        self.seed: int = settings.seed(seed)

    @property
    def model(self) -> TransformerModel:
        return self._model

    def print_string(self) -> str:
        return f"{self._named()} for {self._model.title}"

    def __repr__(self) -> str:
        return self.print_string()

    def _named(self) -> str:
        name = type(self).__name__
        return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
