"""The routes, a module for each subject; each has `routes(server)`, a router."""
