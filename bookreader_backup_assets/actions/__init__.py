"""What the user asks for, in verbs: capture, verify, catalog, seal. No Dagster here."""
