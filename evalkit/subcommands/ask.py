"""The command `evalkit ask`: one question to a checkpoint, with documentation or tools."""

from __future__ import annotations

from typing import Any

import click

from evalkit.options import COUNT, CheckpointName, docs_options, refuse_dependent_options, tool_options
from evalkit.text import one_line, visible
from shards.runtime.machine import DTYPES


@click.command()
@click.argument("checkpoint", type=CheckpointName())
@click.argument("question")
@docs_options
@tool_options
@click.option("--engine", default="auto", show_default=True, help="auto, vllm or transformers.")
@click.option(
    "--dtype", type=click.Choice([*DTYPES, "float16"]), default="auto", show_default=True, help="As in score."
)
@click.option("--max-new-tokens", type=COUNT, default=256, show_default=True, help="Maximum length of the answer.")
@click.pass_context
def ask(ctx: click.Context, /, **settings: Any) -> None:
    """Ask CHECKPOINT one QUESTION, with documentation in the prompt or tools, and show its answer.

    Nothing is scored, and the answer is not executed.
    """
    refuse_dependent_options(ctx)
    from evalkit import console
    from evalkit.tools.ask import AskRequest
    from evalkit.tools.ask import ask as ask_checkpoint

    with console.ScoreProgress() as progress:
        answer = ask_checkpoint(AskRequest(**settings), progress)
    for entry in answer.entries:
        click.echo(f"documentation: {one_line(entry.name)}")
    for call in answer.transcript:
        click.echo(f"call of {call['tool']}: {one_line(call['text'])}")
    click.echo(f"answer ({answer.tokens} tokens):\n{visible(answer.text)}")
