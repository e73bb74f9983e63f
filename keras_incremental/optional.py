"""Packages that are installed by an extra, and imported where they are used."""

import importlib
import types


def imported(package: str, extra: str | None = None) -> types.ModuleType:
    """Returns a package that an extra brings.

    Args:
        package: Its name.
        extra: The extra of keras_incremental; by default of the same name.

    Raises:
        ImportError: With the line that installs it.

    >>> imported("json").__name__
    'json'
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{package} is not installed, or cannot be imported: {error}. Run "
            f'`pip install "keras_incremental[{extra or package}]"`.'
        ) from error
