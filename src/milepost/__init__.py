"""Milepost: an event engine for organisations that share outcomes.

The four rooms (`agents`, `ops`, `topology`, `schemas`) lie at the top of the repository and are reached from here by
relative links, because their bare names belong to other projects.  Inside the project import `milepost.topology…`.
"""

__version__ = "0.1.0"
