"""Options and error handling that all commands share: `--version`, `--debug` and one-line errors.

An error that the user can fix is printed as one line, and the command exits with a small code. `--debug` shows its
traceback instead. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def standard_options(program: str) -> Callable[[_Command], _Command]:
    """Return a decorator that adds `--version` and `--debug` to a command or a group.

    Args:
        program: Name that `--version` prints. The decorated function gets the flag as the parameter `debug`.
    """
    quiet_torchao()

    def decorate(command: _Command) -> _Command:
        command = click.option("--debug", is_flag=True, help="Show the traceback of errors.")(command)
        return click.version_option(package_name="teacherless", prog_name=program)(command)

    return decorate


def quiet_torchao() -> None:
    """Silence warnings of torchao, which transformers imports where it is installed: a CPU loads no GPU kernels."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def one_line_errors(
    *kinds: type[Exception],
    prefix: str = "error",
    debug: bool = False,
    exit_code: Callable[[Exception], int] = lambda error: 1,
) -> Iterator[None]:
    """Print exceptions of some kinds as one line on standard error, and exit.

    Args:
        *kinds: Exceptions that a user can fix. Others pass through.
        prefix: Text before the message, without the colon.
        debug: Let the exceptions pass through, too, so that Python prints their traceback.
        exit_code: Function from the exception to the exit code.

    Raises:
        SystemExit: After a message was printed.
    """
    try:
        yield
    except kinds as error:
        if debug:
            raise
        fail(str(error), prefix=prefix, exit_code=exit_code(error))


def fail(message: str, *, prefix: str = "error", exit_code: int = 1) -> NoReturn:
    """Print one line on standard error, and exit.

    Args:
        message: The error in words.
        prefix: Text before the message, without the colon.
        exit_code: Exit code of the process.

    Raises:
        SystemExit: Always.
    """
    click.echo(f"{prefix}: {message}", err=True)
    raise SystemExit(exit_code)
