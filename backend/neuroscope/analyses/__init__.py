"""Analyses: named questions to a model, composed from lenses and circuits.

Uses `lenses`, `circuits` and `tasks`. Start with `registry`, which implements `model analyze: #factualRecall`.
"""
