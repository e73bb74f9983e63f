"""Runs one test file with pytest; Bazel's `py_test` targets start here."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
