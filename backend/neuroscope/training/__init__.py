"""Training: the program that made the models that ship, from the corpus to the card.

`python -m neuroscope.training.train NAME`, then `python -m neuroscope.training.export NAME`. The corpus is frozen (`corpus.fingerprint`). Uses
`tasks`, `lenses` and `models`. Begin with `train`.
"""
