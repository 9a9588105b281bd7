"""Script 16 leaves a stream of events in `result`; this reads it: each token as it comes, with the size of what its hooks captured."""

for event in result:
    norms = {site: found["data"].norm() for site, found in event["activations"].items()}
    print(f"{event['text']!r:>16}", *(f"{site} {norm:8.2f}" for site, norm in norms.items()), sep="   ")
