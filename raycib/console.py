"""How every command of raycib ends: bad input is one line on stderr and exit code 2."""

import errno
import logging
import os
import reprlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import typer
from pydantic import ValidationError
from typer.exceptions import TyperException

from raycib.errors import UserError
from raycib.importing import collect_seldom
from raycib.store import StoreError

INTERRUPTED = 130
AGAIN_S = 0.05
"""After which a signal comes once more whose exception was lost."""
STOPPED = "stopped; run the same command again to go on"
stopped_by: list[int] = []
"""Signals that came to the command that runs here."""
REFUSED_BY_THE_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.ENAMETOOLONG,
}  # fmt: skip
LONGEST = 2000
"""Characters of an error's line: what it quotes may be of any length."""
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 80


def clickable(text: str, address: str) -> str:
    """`text` as a link, where standard output is a terminal (OSC 8); as it is anywhere else."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b]8;;{address}\x1b\\{text}\x1b]8;;\x1b\\"


def make_app(help_text: str, **how: Any) -> typer.Typer:
    """An empty command line with plain, greppable help."""
    return typer.Typer(
        help=help_text,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        **how,
    )


def made(folder: Path, option: str) -> Path:
    """The folder that an `option` names, made where it was not there; `UserError` where it cannot
    be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose {option}") from error
    return folder


def tell_lost(error: object) -> int:
    """What a sweep is told of that lost what it runs on; its exit code.

    A signal to all processes of a group ends Ray's too, as `scancel`, `timeout` and systemd send
    it: such a sweep was stopped."""
    if stopped_by:
        return _tell_stopped()
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    print("all results are kept: run the same command again", file=sys.stderr, flush=True)
    return 1


def run(app: Callable[..., Any]) -> NoReturn:
    """Run a command line to its exit code: 0 done, 1 some cells failed, 2 bad input, 130 stopped
    by Ctrl-C, 143 by SIGTERM and 129 by the end of its terminal.

    Errors that a person can mend become one line; anything else keeps its traceback.
    """
    collect_seldom()
    _print_anywhere()
    # Where a home cannot be written to it says at length that its cache is elsewhere.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    stopped_by.clear()
    try:
        with _stoppable(stopped_by):
            code = app(standalone_mode=False)
    except (UserError, StoreError) as error:
        _refuse(str(error))
    except ValidationError as error:
        _refuse(describe(error))
    except TyperException as error:
        said = getattr(error, "format_message", error.__str__)()
        if not said.startswith("Usage: "):
            _refuse(f"{said.rstrip('.')}; see --help")
        print(said, file=sys.stderr)  # a program of several commands, and none of them
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read what is printed has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        if error.errno not in REFUSED_BY_THE_DISK:
            raise
        _refuse(f"{error.filename or 'a file'}: {error.strerror}; make room, or choose --out")
    except Exception:
        if not stopped_by:
            raise
        code = INTERRUPTED  # a library made another error of it, as transformers' imports do
    if code == INTERRUPTED:  # typer turns an interruption into this code by itself
        code = _tell_stopped()
    raise SystemExit(code if isinstance(code, int) else 0)


def _tell_stopped() -> int:
    """Say so; the exit code of the signal that did it."""
    print(STOPPED, file=sys.stderr, flush=True)
    return 128 + (stopped_by or [signal.SIGINT])[0]


def _print_anywhere() -> None:
    """What is printed ends no command: a letter that a terminal lacks is shown as "?", and nothing
    where standard output or error is closed. Files that are opened later do not get its number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, os.fdopen(number, "w", errors="replace"))
        elif name == "stdout" and isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def _stoppable(got: list[int]) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP stops the work as an exception does, with all that it
    started; the second one ends the process at once. `got` gets their numbers."""
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def stop(number: int, _: object) -> None:
        if number == signal.SIGHUP:
            for one in terminals:  # it is gone, and would refuse what is said on the way out
                os.dup2(os.open(os.devnull, os.O_WRONLY), one)
            if number in got:  # the shell and the system both say it
                return
        got.append(number)
        if len(got) > 1:
            os.write(sys.stderr.fileno(), f"{STOPPED}\n".encode())
            os._exit(128 + number)
        raise KeyboardInterrupt

    def again(lost: "sys.UnraisableHookArgs") -> None:
        """Python lets no error out of what an object does as it goes; a signal comes once more."""
        if isinstance(lost.exc_value, KeyboardInterrupt) and got:
            threading.Timer(AGAIN_S, os.kill, (os.getpid(), got.pop())).start()
        else:
            unraisable(lost)

    unraisable, sys.unraisablehook = sys.unraisablehook, again
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as `nohup` has it
        numbers.append(signal.SIGHUP)
    before = {n: signal.signal(n, stop) for n in numbers}
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, handler)


def describe(error: ValidationError, title: str = "") -> str:
    """What pydantic found, where in what has the `title` (the spec's, if it has none), and what is
    allowed, in one line."""
    parts = []
    for one in error.errors():
        where = ".".join(map(str, (title or error.title, *one["loc"])))
        found, wanted = SHORT.repr(one["input"]), one["msg"]
        if one["type"] == "tuple_type":
            wanted = 'Input should be a list in JSON, such as \'["a","b"]\''
        parts.append(f"{where}: {wanted} (found {found})")
    return "; ".join(parts)


def _refuse(message: str) -> NoReturn:
    line = " ".join(message.split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    print("error: " + line, file=sys.stderr)
    raise SystemExit(2)
