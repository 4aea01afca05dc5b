"""The systems: each on the same core, none knowing of another."""
