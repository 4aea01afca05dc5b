"""LGFFEM: the model, protocols and metrics of the histopathological image retrieval study, and its neighbours.

Data flows one way, and a module imports only from its own folder and those left of it: ``base`` -> ``config`` ->
``data`` -> ``model`` -> ``training`` -> ``retrieval`` -> ``report`` -> ``audit`` -> ``systems`` -> ``run``.
"""

__version__ = "0.1.0"
