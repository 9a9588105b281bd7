"""Safety: harmful requests found out by a probe, and replies turned towards the refusal that the model knows.

`SafetyEditor` (documented script 17), `Probe` for any concept, and `SafetyReport`, which judges what the redirect does. Nothing here
removes refusals. Uses `circuits`, `editing` and `hooks`. Begin with `editor`.
"""
