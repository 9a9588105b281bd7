"""Tasks: what a model may be asked, as pairs of prompts with answers, and what can be concluded from numbers.

Generators of the abilities (`registry` lists them), `Dataset` and its independent parts, prompt pairs, metrics, and `statistics`: intervals,
tests and false discovery rates. Uses `models`. Begin with `dataset`.
"""
