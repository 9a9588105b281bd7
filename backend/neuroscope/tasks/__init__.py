"""Tasks: prompts with answers, and the statistics of results.

Generators of examples (`registry` lists them), `Dataset` and its independent parts, prompt pairs, metrics, and `statistics`:
intervals, tests and false discovery rates. Uses `models`. Start with `dataset`.
"""
