"""A real schema registry for tests: one embedded Apicurio, or a skip that says what is missing."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.ops.registry import EmbeddedRegistry, read_lock, read_registry
from milepost.schemas.errors import DeclarationError
from tests.support.broker import shared_jars


def needed() -> Path:
    """The folder of the registry's files; skips the test where Java or they cannot be had."""
    try:
        from milepost.ops.broker import java_runtime

        java_runtime()
        return read_registry(shared_jars())
    except DeclarationError as error:
        if "differ" in str(error):
            raise
        pytest.skip(f"no Apicurio {read_lock().version}: {error}")


@contextlib.contextmanager
def running_registry() -> Iterator[EmbeddedRegistry]:
    """For as long as the block lasts; its data is deleted afterwards."""
    needed()
    with (
        tempfile.TemporaryDirectory(prefix="milepost-registry-", ignore_cleanup_errors=True) as home,
        EmbeddedRegistry(Path(home), jars=shared_jars()) as registry,
    ):
        yield registry
