"""Describe the fidelity of a cache to its teacher in words, from its statistics and its last check.

`shards.reports.statistics.measure` and `teacher-dump --check` compute the numbers. docs/fidelity.md explains each.
"""

from __future__ import annotations

import json
from typing import Any

from shards.errors import ShardError
from shards.format.side_files import CHECK_NAME
from shards.read import Cache

Lines = list[tuple[str, str]]

_UNITS = {
    "head probabilities": "",
    "tail mass": "",
    "realised token": " nat",
    "whitespace mass": "",
    "entropy": " nat",
    "log Z": " nat",
}


def read_check(cache: Cache) -> dict[str, Any] | None:
    """Return the result of the last `teacher-dump --check`, None if there is none.

    Returns:
        The result. If it is of another manifest, {"of": the digest of that manifest}.

    Raises:
        ShardError: If the file is no such result.
    """
    if not cache.store.exists(CHECK_NAME):
        return None
    where = f"{cache.store.root}/{CHECK_NAME}"
    try:
        check: dict[str, Any] = json.loads(cache.store.read(CHECK_NAME))
        of = str(check["manifest_sha256"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ShardError(f"{where}: found no result of a check; delete it, or run teacher-dump --check again") from None
    return check if of == cache.manifest_sha256 else {"of": of}


def report_lines(report: dict[str, Any], check: dict[str, Any] | None) -> Lines:
    """Return the statistics and the check of a cache as named lines. Names of continued lines are empty.

    Args:
        report: The report in the manifest.
        check: The result of `read_check`.
    """
    lines: Lines = _statistics_lines(report) if "captured_quantiles" in report else []
    if "realised_in_head" in report:
        return [*lines, ("checked", "not possible: an imported cache does not say how its teacher was run")]
    if check is None:
        return [*lines, ("checked", "not yet: teacher-dump --check N scores N rows again")]
    if "of" in check:
        text = f"{CHECK_NAME} is of another cache (manifest {check['of'][:12]}): run teacher-dump --check N"
        return [*lines, ("checked", text)]
    return [*lines, *check_lines(check)]


def _statistics_lines(report: dict[str, Any]) -> Lines:
    keep = [f"{'half' if q == '50' else q + '%'} {_percent(v)}" for q, v in report["captured_quantiles"].items()]
    sizes = [f"{field} {n:.1f}" for field, n in report["bytes_by_field"].items()]
    kept = ("", f"of the positions, {keep[0].replace(' ', ' keep at most ')}, {', '.join(keep[1:])}")
    per_field: Lines = [
        ("bytes", f"{sum(report['bytes_by_field'].values()):.1f} per token: {', '.join(sizes[:5])},"),
        ("", ", ".join(sizes[5:])),
    ]
    if "realised_in_head" in report:
        in_head = f"{report['realised_in_head']:.1%} of the realised tokens are in the head"
        captured = f"{report['head_mass']:.1%} of the mass has its id stored (mean); {in_head}"
        return [("captured", captured), kept, *per_field]
    return [
        (
            "captured",
            f"{report['head_mass']:.1%} of the teacher's mass has its id stored (mean); draws stand for the rest",
        ),
        kept,
        (
            "bucket",
            f"{report['without_draws']:.1%} of positions have no draws: of their tails, {report['bucket_mass']:.1g} of "
            "all mass, only the sum is known",
        ),
        (
            "KL lost",
            f"by truncation alone {report['kl_tail_even_undrawn']:.1g} nat: draws are unbiased, so only tails without "
            f"them count ({report['kl_tail_even']:.2g} if draws are ignored)",
        ),
        ("", f"by quantisation alone {report['kl_quantised']:.1g} nat, expected from the steps of the codes"),
        *per_field,
    ]


def check_lines(check: dict[str, Any]) -> Lines:
    """Return the result of a check as named lines."""
    rows = f"{check['rows']} of {check['of_rows']:,} rows"
    noise, engine = check["noise"], check["engine"]["name"]
    if all(tally["agree"] == 1 for tally in noise.values()):
        difference = "agree to the last bit"
    else:
        difference = (
            f"are {noise['realised token']['mean']:.1g} nat apart at the realised token, with "
            f"{_percent(noise['draws']['agree'])} of the draws the same"
        )
    lines = [("noise", f"two runs of {engine} in other batches, {rows}, {difference}")]
    if "stored" not in check:
        return [*lines, ("checked", "not against the exact teacher: teacher-dump --check N scores N rows again")]
    kept, exact = check["fidelity"], check["reference"]
    verdict = "nothing is off by more than rounding and noise" if check["sound"] else "NOT what the teacher computes:"
    return [
        *lines,
        ("checked", f"{rows} against {exact['name']} in {exact['dtype']}: {verdict}"),
        *(("", problem) for problem in check["problems"]),
        (
            "",
            f"relative RMS error of the estimate {kept['rms']:.3g}; its bias, in the teacher's own cross-entropy, "
            f"{kept['draws_bias']:+.1g} +- {kept['draws_bias_error']:.1g} nat",
        ),
        (
            "",
            f"KL lost by truncation alone {kept['kl_tail_even_undrawn']:.2g} nat ({kept['kl_tail_even']:.3g} if draws "
            f"are ignored), by quantisation alone {kept['kl_quantised']:.2g}",
        ),
    ]


def check_table(check: dict[str, Any]) -> str:
    """Return a check as a table of the errors of the records, the allowed errors, and the noise of the engine."""
    rows: list[tuple[str, ...]] = [("", "off by, mean", "largest", "in steps", "allowed", "two runs, mean", "largest")]
    for name in ("head ids", "draws", *_UNITS):
        if name not in check["stored"]:
            continue
        stored, noise, unit = check["stored"][name], check["noise"][name], _UNITS.get(name)
        cells = [
            [f"{_percent(x['agree'])} same", ""] if unit is None else [f"{x[k]:.2g}{unit}" for k in ("mean", "max")]
            for x in (stored, noise)
        ]
        allowed = [f"{stored['max_steps']:.2g}", f"{check['limits'][name]:.2g}"]
        rows.append((name, *cells[0], *allowed, *cells[1]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "   ".join(cell.rjust(w) if c else cell.ljust(w) for c, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )


def _percent(share: float) -> str:
    """Return a share as a percentage, which is 100 only for all."""
    text = f"{share:.1%}" if share < 0.9995 else f"{share:.3%}"
    return "nearly all" if share < 1 and text == "100.000%" else ("all" if share == 1 else text)
