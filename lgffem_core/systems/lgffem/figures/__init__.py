"""LGFFEM drawn: its architecture, its training, its maps, its ledger."""
