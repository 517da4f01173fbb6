"""The oracle: the batch model that the engine is compared with.  It shares no code with the engine."""

from tests.oracle.clock import Refused
from tests.oracle.keys import RawRecord, Stamp
from tests.oracle.oracle import AS_SHOWN, CORRECTED, LATEST, Answer, Company, Oracle, Point

__all__ = [
    "AS_SHOWN",
    "CORRECTED",
    "LATEST",
    "Answer",
    "Company",
    "Oracle",
    "Point",
    "RawRecord",
    "Refused",
    "Stamp",
]
