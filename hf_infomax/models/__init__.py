"""The folder that travels to the Hub: flat, so that `trust_remote_code` finds every sibling by name."""
