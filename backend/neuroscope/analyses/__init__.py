"""Analyses: five questions to a model by name, each put together from lenses and circuits.

Uses `lenses`, `circuits` and `tasks`. Begin with `registry`; `model analyze: #factualRecall` arrives there.
"""
