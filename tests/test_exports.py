"""What is promised to be importable is, and is documented."""

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "package",
    [
        "kgcore",
        "kgcore.backends",
        "kgcore.backup",
        "kgcore.migration",
        "kgcore.optimizer",
        "kgcore.sample",
        "kgcore.schema",
    ],
)
def test_every_export_exists_and_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert hasattr(module, name)
        if callable(getattr(module, name)):
            assert getattr(module, name).__doc__, name


def test_the_library_needs_neither_celery_nor_redis() -> None:
    script = (
        "import sys, kgcore, kgcore.migration\n"
        "print(sorted({'celery', 'kombu', 'redis'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
