"""What fails, by what a program can do about it. Each prints as one line: place, value, remedy."""


class Error(Exception):
    """Any failure of the library."""


class RequestError(Error, ValueError):
    """A value out of range, or shapes that do not go together."""


class UnknownNameError(RequestError):
    """There is no format or recipe of this name."""

    name: str
    nearest: str | None


class UnsupportedError(Error, TypeError):
    """The model is of another kind: a classifier does not chat, a language model has no classes."""


class ContextFullError(RequestError):
    """The prompt leaves no room for an answer."""

    prompt: int
    context: int


class InputError(Error, ValueError):
    """The content of a file is wrong."""

    path: str | None
    line: int | None


class OutOfMemoryError(Error, MemoryError):
    """More memory is needed than there is; said before the work starts."""


class FileError(Error, OSError):
    """Reading or writing failed."""

    path: str | None
    line: int | None


class NotFiniteError(Error, ArithmeticError):
    """A value is NaN or infinite."""


class CheckError(Error):
    """A check failed."""


class StoppedError(Error):
    """The work was stopped by another thread's signal."""


class InternalError(Error, RuntimeError):
    """A fault of the library."""
