"""Compiles syntax trees to Python: scopes, inlined control flow, code objects with the script's lines and columns."""
