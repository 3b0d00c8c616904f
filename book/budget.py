"""The page on time and memory: what each chapter took in the runs that the site shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What the default profile may take on two cores, in seconds.
CHAPTER_BUDGET = 5 * 60
BOOK_BUDGET = 20 * 60
#: Where the page has the table, and where the built site gets what only the build can tell.
TABLE = "<!-- the table of budget.py -->"
SITE_SECONDS = "SECONDS-OF-THE-SITE"
TOTAL_TIME = "TIME-OF-ALL"
TOTAL_VERDICT = "VERDICT-ON-ALL"


@dataclass(frozen=True)
class Measured:
    """What one chapter took.

    Attributes:
        chapter: Name of the notebook.
        seconds: From the start of the kernel to its end.
        peak_mb: Largest memory of the kernel and its children.
        preparation_seconds: To make the default model before it, next to none where it was there.
        cached_results: How many results the cache held when it began.
        date: When it began, ISO.
        machine: ``cores``, ``memory_gb``, ``system``.
    """

    chapter: str
    seconds: float
    peak_mb: float
    preparation_seconds: float
    cached_results: int
    date: str
    machine: Mapping[str, Any]


def measured(stamp: Path) -> Measured:
    """What the file beside an executed notebook tells of its run."""
    content = json.loads(stamp.read_text(encoding="utf-8"))
    run = content["run"]
    return Measured(
        run["notebook"],
        run["seconds"],
        run["peak_mb"],
        content["preparation_seconds"],
        content["cached_results"],
        content["date"],
        content["machine"],
    )


@dataclass(frozen=True)
class Budget:
    """What a build took.

    Attributes:
        profile: Its name.
        runs: A chapter each, in the order of the book.
        install_seconds: To install the packages, if that is known.
    """

    profile: str
    runs: Sequence[Measured]
    install_seconds: float | None = None

    def table(self) -> str:
        """Machine and times as Markdown, with marks for what :meth:`with_site_time` fills in."""
        chapters = sum(run.seconds for run in self.runs)
        preparation = sum(run.preparation_seconds for run in self.runs)
        memory = max((run.peak_mb for run in self.runs), default=0)
        lines = [
            _circumstances(self.profile, self.runs),
            "",
            "| Step | Time | Against the budget | Memory | Results in the cache before |",
            "| --- | --: | --- | --: | --: |",
            *map(_chapter_row, self.runs),
            f"| **all chapters** | **{_time(chapters)}** | | **{_memory(memory)}** | |",
            f"| installing the packages | {_time(self.install_seconds)} | | | |",
            f"| preparing the model | {_time(preparation)} | | | |",
            f"| building this site | {SITE_SECONDS} | | | |",
            f"| **with set-up** | **{TOTAL_TIME}** | {TOTAL_VERDICT} | | |",
        ]
        return "\n".join(lines)

    def with_site_time(self, text: str, site_seconds: float) -> str:
        """A page with the time that it took to build it, which nothing knew before.

        Args:
            text: Of the page, with the marks of :meth:`table`.
            site_seconds: The time.
        """
        total = sum(run.seconds + run.preparation_seconds for run in self.runs) + site_seconds
        total += self.install_seconds or 0
        without = ", without the packages" if self.install_seconds is None else ""
        values = {
            SITE_SECONDS: _time(site_seconds),
            TOTAL_TIME: _time(total) + without,
            TOTAL_VERDICT: _verdict(total, BOOK_BUDGET),
        }
        for mark, value in values.items():
            text = text.replace(mark, value)
        return text


def _circumstances(profile: str, runs: Sequence[Measured]) -> str:
    """Profile, machine and date, in a sentence."""
    days = sorted({run.date[:10] for run in runs})
    machines = {
        f"{run.machine['system']}, {run.machine['cores']} processor cores, "
        f"{run.machine['memory_gb']} GB of memory"
        for run in runs
    }
    when = " to ".join(dict.fromkeys([days[0], days[-1]]))
    return f"Measured in profile `{profile}` on {when}: {'; '.join(sorted(machines))}."


def _chapter_row(run: Measured) -> str:
    verdict = _verdict(run.seconds, CHAPTER_BUDGET)
    name = run.chapter.replace("_", " ")  # which breaks into lines on a phone
    return (
        f"| [{name}](../notebooks/{run.chapter}.ipynb) | {_time(run.seconds)} | {verdict} "
        f"| {_memory(run.peak_mb)} | {run.cached_results:,} |"
    )


def _memory(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _verdict(seconds: float, budget: float) -> str:
    within = "within" if seconds <= budget else "over"
    return f"{within} {budget // 60:.0f} minutes"
