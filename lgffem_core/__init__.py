"""LGFFEM: the model, protocols and metrics of the histopathological image retrieval study.

Data flows one way, and a module imports only from those left of it:
params (``study``) -> ``data`` -> ``model`` -> ``training`` -> ``retrieval`` -> ``report``.
"""

__version__ = "0.1.0"
