"""Features: neurons and directions for concepts, and their ablation.

`NeuronAnalyzer`, `NeuronAblator`, `FeatureEntanglementAnalyzer`. Uses `tasks` and the tests of `circuits`. Start with
`neurons`.
"""
