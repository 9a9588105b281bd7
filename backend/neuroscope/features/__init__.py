"""Features: neurons and directions for concepts, and what happens without them.

`NeuronAnalyzer`, `NeuronAblator`, `FeatureEntanglementAnalyzer`. Uses `tasks` and the tests of `circuits`. Begin with `neurons`.
"""
