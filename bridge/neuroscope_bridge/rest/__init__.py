"""The HTTP door: an OpenAI-compatible server that also returns activations, its clients, and the Lens page at `/`."""
