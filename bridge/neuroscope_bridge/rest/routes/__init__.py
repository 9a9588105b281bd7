"""The routes; each module has `routes(server)`, which returns a router."""
