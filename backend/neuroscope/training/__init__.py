"""Training of the models that ship, from the corpus to the card.

`python -m neuroscope.training.train NAME`, then `python -m neuroscope.training.export NAME`. The corpus is frozen
(`corpus.fingerprint`). Uses `tasks`, `lenses` and `models`. Start with `train`.
"""
