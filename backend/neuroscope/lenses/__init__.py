"""Lenses: observations of a run without interventions.

Logit lens, direct logit attribution, attention patterns, scores of heads on repeated tokens. Uses `tasks` and `models`. Start
with `logit_lens`.
"""
