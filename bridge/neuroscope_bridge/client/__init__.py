"""The Python client: a server's vocabulary, from a notebook on another machine.

ns = neuroscope.connect("tcp://127.0.0.1:5555")
model = ns.TransformerModel.from_hugging_face("gpt2")
results = ns.ActivationPatcher(model).test_causal_relationship(circuit)
model.run_with_caching("The cat")["5.residual"].numpy()
"""

from neuroscope_bridge.client.client import Client, block, connect
from neuroscope_bridge.client.remote import RemoteClass, RemoteObject

__all__ = ["Client", "RemoteClass", "RemoteObject", "block", "connect"]
