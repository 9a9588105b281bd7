"""What NeuroScope concludes, held against what is known: circuits that were planted, and data in which there is nothing.

    make truth                                       # everything; some ten minutes on two cores
    python -m benchmarks.truth --only planted --quick

Prints two tables and writes them to `benchmarks/truth/RESULTS.md`, and every row to `benchmarks/truth/results.json`.
"""
