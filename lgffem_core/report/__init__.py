"""Tables and figures. Everything says on its face which data it is from."""
