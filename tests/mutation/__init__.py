"""Mutation testing: small faults put into the sources, one at a time, to see that a test turns red.

    python -m tests.mutation [--rooms steering lenses] [--sample 40] [--all] [--seed 0]

No file is ever changed: each mutant lives in a process of its own, whose import system compiles the changed syntax tree in
place of the module.
"""
