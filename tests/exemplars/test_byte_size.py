"""Numbers of bytes as people write them."""

import numpy as np
import pytest

from keras_incremental.exemplars import parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (7, 7),
        (np.int64(7), 7),
        ("7", 7),
        ("7B", 7),
        ("2kB", 2_000),
        ("50MB", 50_000_000),
        ("1.5 GB", 1_500_000_000),
        ("1TB", 1_000_000_000_000),
        ("2KiB", 2_048),
        (" 64 MiB ", 67_108_864),
        ("0.5GiB", 536_870_912),
        ("1TiB", 1_099_511_627_776),
        ("0.0015kB", 1),
        ("4.35kB", 4_350),  # 4.35 * 1000 is 4349.999... in floating point
    ],
)
def test_sizes_are_read_to_the_byte(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        ("50mb", ValueError, "'50mb'.*Units: B, kB, MB"),
        ("50 Mb", ValueError, "Units"),
        ("MB", ValueError, 'e.g. budget="50MB"'),
        ("-5MB", ValueError, "expected a number and a unit"),
        ("", ValueError, "expected a number and a unit"),
        (0, ValueError, "one byte or more"),
        ("0.1B", ValueError, "one byte or more"),
        (-3, ValueError, "one byte or more"),
        (1e6, TypeError, "is a float; expected an integer"),
        (True, TypeError, "is a bool"),
    ],
)
def test_other_sizes_are_refused_with_an_example(size, error, message):
    with pytest.raises(error, match=message):
        parse_bytes(size)
