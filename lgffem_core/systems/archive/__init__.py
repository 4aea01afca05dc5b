"""Archive: what search costs among a million patches, by index; LGFFEM is not needed for it."""
