"""The model card of a published run: front matter for the hub, held-out measures, loading, repeating, provenance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shards.edit.hub_card import TAGS, front_matter, licence_fields
from shards.format.manifest import Teacher
from shards.format.side_files import seal_card
from shards.reports.summary import licence_line
from student_train.config import from_dict
from student_train.evaluation.intervals import Interval, interval_text
from student_train.model.sources import HubModel, base_on_hub
from student_train.reproduction.publication import PublishedCache, resolve
from student_train.reproduction.recorded_run import RecordedRun

_DATA_SETS = "hf://datasets/"


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """What the card of a run says."""

    run: RecordedRun
    """The run."""
    caches: Sequence[PublishedCache]
    """Its caches."""
    teachers: Sequence[Teacher]
    """The teacher of each cache."""
    address: str
    """URL of the published run; "" for a folder, whose path means nothing to a reader."""

    @property
    def base(self) -> HubModel | None:
        """The model on the hub that the student starts from; None where it is not known there."""
        return base_on_hub(from_dict(self.run.record["config"]).student, self.teachers[0])

    @property
    def measures(self) -> dict[str, tuple[str, Interval, Interval | None]]:
        """Label, interval after training and interval before it, by measure; {} without held-out rows."""
        from student_train.objectives.row_score import LABELS

        held_out = self.run.record["held_out"]
        after, before = held_out.get("after") or {}, held_out.get("before") or {}
        return {name: (label, after[name], before.get(name)) for name, label in LABELS.items() if name in after}


def model_card(facts: CardFacts) -> str:
    """Return the text of the card, with its own digest."""
    record = facts.run.record
    teachers = " and ".join(dict.fromkeys(teacher.name for teacher in facts.teachers))
    name = f"A student of {teachers}"
    sections = [
        _front_matter(facts, name),
        f"# {name}\n",
        f"A model of {record['student']['parameters']:,} parameters, distilled from records of {teachers} with "
        f"teacherless: {record['train']['steps']:,} steps on {record['train']['tokens']:,} tokens, without the teacher "
        "in memory.\n",
        _measures(facts),
        f"## Load\n\n```python\n{_loading(facts.address)}\n```\n",
        "## Repeat\n\nThe shards hold what the teacher said, so that anyone can train this model again:\n\n"
        f"```\npip install 'teacherless[train]'\nstudent-train --repeat {facts.address or 'PATH'} --out again/\n```\n\n"
        "It fetches record and shards by digest, trains, compares, and ends with `identical`, `equivalent` or "
        "`different`.\n",
        f"## Provenance\n\n{_provenance(facts)}\n",
        f"## Licence terms\n\n{_terms(facts)}\n",
    ]
    return seal_card("\n".join(section for section in sections if section))


def _front_matter(facts: CardFacts, name: str) -> str:
    base = facts.base
    licences = {teacher.licence for teacher in facts.teachers} | {base.licence if base else ""}
    is_one = len({licence.lower() for licence in licences}) == 1
    data_sets = sorted({*map(_data_set, _cache_urls(facts))} - {""})
    return front_matter(
        {
            **licence_fields(licences if is_one else {"other"}),
            **({"base_model": base.repo} if base else {}),
            **({"datasets": data_sets} if data_sets else {}),
            "library_name": "transformers",
            "pipeline_tag": "text-generation",
            "tags": [*TAGS],
            **({"model-index": [{"name": name, "results": [_result(facts)]}]} if facts.measures else {}),
        }
    )


def _result(facts: CardFacts) -> dict[str, Any]:
    """Return the held-out measures as the hub's model index has them."""
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": "teacherless", "name": "held-out rows of the shards"},
        "metrics": [
            {"type": name, "name": label, "value": round(after["mean"], 6)}
            for name, (label, after, _) in facts.measures.items()
        ],
    }


def _measures(facts: CardFacts) -> str:
    if not facts.measures:
        return ""
    held_out = facts.run.record["held_out"]
    rows = [
        f"| {label} | {interval_text(before) if before else '-'} | {interval_text(after)} |"
        for label, after, before in facts.measures.values()
    ]
    have_intervals = any("low" in after for _, after, _ in facts.measures.values())
    how = "with 95 % intervals over documents" if have_intervals else "of one document, which gives no interval"
    return "\n".join(
        [
            f"On {held_out['tokens']:,} held-out tokens, {how}:\n",
            "| | before training | after |\n|---|---|---|",
            *rows,
            "\nKL is in nats per token. The measures compare the model with its teacher on the corpus of the shards. "
            "They do not say how well it solves tasks.\n",
        ]
    )


def _loading(address: str) -> str:
    place, more = address, ""
    if address.startswith("hf://"):
        owner, name, *folders = address.removeprefix("hf://").removeprefix("models/").split("/")
        place, more = f"{owner}/{name}", f", subfolder={json.dumps('/'.join(folders))}" if folders else ""
    elif not address or "://" in address:
        place = "FOLDER"  # transformers loads from the hub or from a folder
    call = f".from_pretrained({json.dumps(place)}{more})"
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM{call}\ntokenizer = AutoTokenizer{call}"
    )


def _provenance(facts: CardFacts) -> str:
    record, base = facts.run.record, facts.base
    versions, hardware = record["versions"], record["hardware"]
    student = (
        f"{base.repo} {base.revision}".strip() if base else "a model of its own, in `base/` where it was published"
    )
    rows = [
        *(("teacher", " ".join(x for x in (t.name, t.repo, t.revision) if x)) for t in facts.teachers),
        *(
            ("shards", f"{url}, manifest {cache.manifest_sha256}")
            for url, cache in zip(_cache_urls(facts), facts.caches, strict=True)
        ),
        ("student before training", f"{student}, sha256 {record['student']['weights_sha256']}"),
        ("weights", f"sha256 {facts.run.exported}"),
        ("seed", record["config"]["seed"]),
        ("versions", ", ".join(f"{name} {versions[name]}" for name in ("teacherless", "torch", "transformers"))),
        ("machine", f"{hardware['machine']}, {hardware['dtype']}, threads: {hardware['threads']}"),
    ]
    return "\n".join(["| | |\n|---|---|", *(f"| {name} | {str(text).replace('|', '/')} |" for name, text in rows)])


def _terms(facts: CardFacts) -> str:
    lines = [
        f"Teacher {teacher.name}: "
        + licence_line({"licence": teacher.licence, "restricts_outputs": teacher.restricts_outputs})
        + "."
        for teacher in dict.fromkeys(facts.teachers)
    ]
    licence = facts.base.licence if facts.base else ""
    return "\n\n".join([*lines, f"Student before training: {licence or 'not known'}."])


def _cache_urls(facts: CardFacts) -> list[str]:
    """Return the addresses of the caches; those relative to a folder stay relative."""
    return [resolve(cache.url, run=facts.address) if facts.address else cache.url for cache in facts.caches]


def _data_set(url: str) -> str:
    """Return the hub's name of the data set of a URL, "" for other places."""
    if not url.startswith(_DATA_SETS):
        return ""
    return "/".join(url.removeprefix(_DATA_SETS).split("@")[0].split("/")[:2])
