"""Circuits: the edges between a model's components that do a task.

The graph (`graph`), scores of its edges (`attribution`), runs of circuits (`evaluation`), the search (`search`, `finder`),
judging (`judging`, `controls`, `roles`), and applications: patching, discovery, comparison, composition, quality, the library.
Uses `tasks` and `lenses`. Start with `finder`.
"""
