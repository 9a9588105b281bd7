"""Circuits: which edges between a model's parts do a task.

The graph (`graph`), scores of its edges (`attribution`), runs of circuits (`evaluation`), the search (`search`, `finder`), judging
(`judging`, `controls`, `roles`), and what is done with circuits: patching, discovery, comparison, composition, quality, the library. Uses
`tasks` and `lenses`. Begin with `finder`.
"""
