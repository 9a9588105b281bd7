"""Validation: what a model can do after a change, measured on the same items as before, and judged.

Suites of items (`suites`), outcomes item by item (`outcomes`), paired differences from a baseline (`differences`), the
`ComprehensiveValidator`, and reports with verdicts (`report`). An adapter for lm-evaluation-harness is in `harness`. Uses `tasks`,
and the texts of `features`. Begin with `validator`.
"""
