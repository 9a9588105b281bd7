"""The pictures in the README, of real results on the model that ships: `make pictures`, half a minute of one core.

The same weights, seeds and versions draw the same pictures.
"""

from __future__ import annotations

from pathlib import Path

from neuroscope import ActivationPatcher, CircuitLibrary, SteeringExperiment, TransformerModel

FOLDER = Path(__file__).parent / "pictures"
PROMPT = "When Mary and John went to the park, John gave a drink to"
PAIR = (PROMPT, "When Mary and John went to the park, Mary gave a drink to", " Mary", " John")


def main() -> None:
    """Draw them all."""
    model = TransformerModel.from_pretrained("bundled:gpt2-medium")
    model.analyze("logit_lens", PROMPT).save_image(str(FOLDER / "lens.svg"))
    ActivationPatcher(model).patch(PAIR, "residual@*").save_image(str(FOLDER / "patching.svg"))
    CircuitLibrary.load("entity_recognition").draw(str(FOLDER / "circuit.svg"))
    experiment = SteeringExperiment(model, "past_tense", 6, strengths=(-2.0, -1.0, 0.0, 1.0, 2.0), max_tokens=8)
    experiment.run().save_image(str(FOLDER / "steering.svg"))


if __name__ == "__main__":
    main()
