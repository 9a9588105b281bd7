"""Lenses: what a run shows without changing it.

Logit lens, direct logit attribution, attention patterns, scores of heads on repeated tokens. Uses `tasks` and `models`. Begin with
`logit_lens`.
"""
