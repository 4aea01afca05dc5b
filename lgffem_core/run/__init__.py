"""Running the notebooks: what is to be done, in which order, what it left, and whether it still is that."""

import sys

# jsonschema, a part of Jupyter, can check addresses by a grammar that takes a second to load, in each process anew.
sys.modules.setdefault("rfc3987_syntax", None)  # absent, as it may be: no notebook's format asks for it
