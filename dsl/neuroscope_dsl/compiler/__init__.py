"""From tree to Python: scopes, inlined control flow, code objects with the script's own lines and columns."""
