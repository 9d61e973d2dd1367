"""What is printed: letters that a console cannot show, output that nobody reads, and errors when the work is done."""

import codecs
import os
import sys
from contextlib import contextmanager, redirect_stdout, suppress

# The name under which `_escape_letters` is registered as an error handler of Python's codecs.
HANDLER = "chargpt"

# Error handlers that Python itself gives its streams. Any other was chosen by the user, as in
# PYTHONIOENCODING=ascii:replace.
DEFAULT_HANDLERS = ("strict", "surrogateescape", "backslashreplace")


class _Escaped:
    """Whether a letter had to be escaped since the command began."""

    any_letter = False


def _escape_letters(error):
    """The error handler: é becomes \\xe9 where the encoding has no é -> (text, where to go on)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = []
    for char in error.object[error.start : error.end]:
        if 0xDC80 <= ord(char) <= 0xDCFF:
            # Not a letter: a byte of a file's name that is not UTF-8. No setting would show it as one.
            shown.append(f"\\x{ord(char) - 0xDC00:02x}")
            continue
        shown.append(char.encode("ascii", "backslashreplace").decode("ascii"))
        _Escaped.any_letter = True
    return "".join(shown), error.end


def prepare_streams():
    """Lets standard output and standard error take every letter, whatever their encoding is."""
    codecs.register_error(HANDLER, _escape_letters)
    _Escaped.any_letter = False
    # Python has none where the shell has closed it (>&-), and on Windows without a console.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        # Not every stand-in for a stream can be reconfigured; a notebook's, for one.
        if hasattr(stream, "reconfigure") and stream.errors in DEFAULT_HANDLERS:
            stream.reconfigure(errors=HANDLER)


def print_error(message):
    """Prints a line on the standard error, if anybody reads it."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def print_how_to_see_letters():
    """Names the way out, where letters had to be escaped."""
    if _Escaped.any_letter:
        print_error(
            f"(the output's encoding, {sys.stdout.encoding}, lacks some letters, written as \\xe9 "
            f"or \\u2603: set PYTHONIOENCODING=utf-8 to get them)"
        )


def discard_output():
    """Sends the rest of the standard output, and what is still in its buffer, nowhere.

    Otherwise Python would try to write the buffer at its exit, and complain.
    """
    # A stand-in for the stream may have no file descriptor: io.UnsupportedOperation is both errors.
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class _ToleratingStream:
    """A stream that, once it cannot be written to any more, says so and takes everything without an error."""

    def __init__(self, stream):
        self.stream = stream
        self.lost = False

    def write(self, text):
        try:
            self.stream.write(text)
        except OSError as error:
            self.give_up(error)
        return len(text)

    def flush(self):
        try:
            self.stream.flush()
        except OSError as error:
            self.give_up(error)

    def give_up(self, error):
        """Discards the output from now on, and says so once."""
        discard_output()
        if not self.lost:
            self.lost = True
            print_error(
                f"chargpt train: the output cannot be written any more ({error}); "
                "training goes on without it, and Ctrl-C ends and saves it"
            )

    def __getattr__(self, name):
        return getattr(self.stream, name)


def tolerated_output():
    """A context in which a training does not end because its output has no reader or no room any more."""
    return redirect_stdout(_ToleratingStream(sys.stdout))


@contextmanager
def after_work(saved):
    """Within it, the results of finished work are printed: an error there is told, and is not the work's failure.

    saved: where the work is, as a clause.
    """
    try:
        yield
        sys.stdout.flush()  # here, where the error can still be told from one of the work
    except BrokenPipeError:
        discard_output()  # whoever reads our output has enough
    except Exception as error:  # whatever it is, the work is done
        if isinstance(error, OSError):
            discard_output()
        print_error(f"{saved}; only showing the result failed: {type(error).__name__}, {error}")
