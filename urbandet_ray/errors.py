"""Every error a user can meet, in one tree.

    UrbandetError
    ├── InputError            what the user pointed at cannot be used
    │   ├── RecordError       one record is bad; the run goes on, the record becomes a dead letter
    │   └── LabelError        label map or class mapping does not fit
    ├── ConfigError           a run config or option is wrong
    ├── ModelError            the model file is missing, broken or of another kind
    ├── StorageError          reading or writing failed after retries
    │   ├── NotFoundError     the file, folder or bucket does not exist
    │   ├── AccessError       the credentials do not allow it
    │   └── ConflictError     a conditional write lost: somebody else wrote first
    ├── RunError              the run cannot start, go on or end well
    └── MissingExtraError     an optional part is not installed

A message names the thing, what was got, what was expected and the next step. Everything else that
reaches the user as a traceback is a defect of this package.
"""


def first_line(told: BaseException | str) -> str:
    """What an error, or a program's log, says first: of a library's error, the trouble itself.

    Hints and C++ stack frames follow it. An error without a word is called by its kind.
    """
    return _lines(told)[0]


def last_line(told: BaseException | str) -> str:
    """What an error, or a program's log, says last: behind a traceback, the cause."""
    return _lines(told)[-1]


def _lines(told: BaseException | str) -> list[str]:
    lines = [line.strip() for line in str(told).splitlines() if line.strip()]
    return lines or ["no reason given" if isinstance(told, str) else type(told).__name__]


class UrbandetError(Exception):
    """Base of all errors the command line prints as one message, without a traceback."""


class InputError(UrbandetError):
    """What the user pointed at cannot be used."""


class RecordError(InputError):
    """One record is bad: `reason` is a stable short code (`bad-data-crc`), `detail` the message."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class LabelError(InputError):
    """A label map or class mapping does not fit the model or the data."""


class ConfigError(UrbandetError):
    """A run config or an option is wrong."""


class ModelError(UrbandetError):
    """A model file is missing, broken or of another kind than expected."""


class StorageError(UrbandetError):
    """Reading or writing failed after all retries."""


class NotFoundError(StorageError):
    """The file, folder or bucket does not exist."""


class AccessError(StorageError):
    """The credentials at hand do not allow the action."""


class ArchivedError(StorageError):
    """The file is in an archive (S3 Glacier): it has to be restored before it can be read."""


class ConflictError(StorageError):
    """A conditional write lost: the object exists or was changed by somebody else."""


class RunError(UrbandetError):
    """A run cannot start, go on or end well."""


class MissingExtraError(UrbandetError):
    """An optional part of the package is not installed."""
