"""Log-likelihood of choices: which continuation does the model find likeliest?

Strings that start alike form a unit.  Its common prefix runs once, and its strings go on from the
cached keys and values.  The output head, dear where the vocabulary is large, runs only where a
token is scored, and once for all strings that are the same up to there.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from .batching import encode, padded, run_in_batches
from .models.language_model import LanguageModel

ALLOWED = {
    "reduction": ("mean", "sum"),
    "span": ("full", "continuation"),
    "truncation": ("left", "error"),
}
#: Strings in a unit; bounds the search for units.
MAX_UNIT = 64
#: Padded tokens in a batch, by default.
TOKENS_ON_CPU = 1024
TOKENS_ON_GPU = 16384
#: A cached token is copied and not computed: what it counts in a batch.
CACHED_TOKEN_COST = 1 / 8


class Scored(NamedTuple):
    """Three arrays (n_prompts, n_choices)."""

    scores: np.ndarray
    n_tokens: np.ndarray  # that were scored
    n_cut: np.ndarray  # that did not fit


@overload
def score_choices(
    lm: LanguageModel,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    reduction: str = ...,
    span: str = ...,
    max_length: int | None = ...,
    truncation: str = ...,
    details: Literal[False] = ...,
    token_budget: int | None = ...,
    logit_budget: int = ...,
) -> np.ndarray: ...


@overload
def score_choices(
    lm: LanguageModel,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    reduction: str = ...,
    span: str = ...,
    max_length: int | None = ...,
    truncation: str = ...,
    details: Literal[True],
    token_budget: int | None = ...,
    logit_budget: int = ...,
) -> Scored: ...


def score_choices(
    lm: LanguageModel,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    reduction: str = "mean",
    span: str = "full",
    max_length: int | None = None,
    truncation: str = "left",
    details: bool = False,
    token_budget: int | None = None,
    logit_budget: int = 1024,
) -> np.ndarray | Scored:
    """Token log-likelihood of prompt + choice, tokenized as one string.

    Args:
        lm: The model.
        prompts: Texts (n_prompts,).
        choices: For every prompt as many texts (n_prompts, n_choices).
        reduction: "mean" over the scored tokens, or their "sum".
        span: "full", every token that is predicted, T - 1 of T (the paper, with
            ``reduction="mean"``); "continuation", tokens from index ``len(tok(prompt))`` on, spaces
            at the prompt's end counted with the choice, as lm-evaluation-harness has it (with
            "sum").
        max_length: Tokens that may go in, the last of a string never does; by default what the
            model takes.
        truncation: Of a longer string the earliest tokens are cut ("left"), except the special
            tokens in front, or it is an "error".
        details: Return a :class:`Scored`; without it, a cut is a warning.
        token_budget: Padded tokens in a batch (default 1,024 on a CPU, else 16,384).
        logit_budget: Positions whose logits are held at once.  Results depend on neither budget.

    Returns:
        Scores (n_prompts, n_choices) in nats, higher is likelier; or with ``details`` a
        :class:`Scored`.

    Raises:
        ValueError: For ragged choices, an empty span, a string too long, or a score that is not
            finite.

    Example:
        >>> score_choices(lm, ["The sky is"], [[" blue", " made of cheese"]])  # doctest: +SKIP
        array([[-3.1, -5.2]])
    """
    n_choices = _check_arguments(reduction, span, truncation, prompts, choices)
    limit = _limit(lm, max_length)
    strings = _strings(lm, prompts, choices, span, n_choices)
    n_cut = _cut(lm, strings, limit, truncation)
    if any(n_cut) and not details:
        warnings.warn(
            f"{np.count_nonzero(n_cut)} of {len(strings)} strings were cut on the left to {limit} "
            "tokens.",
            stacklevel=2,
        )
    budget = token_budget or (TOKENS_ON_CPU if lm.device.type == "cpu" else TOKENS_ON_GPU)
    with torch.inference_mode():
        _Scoring(lm, strings, budget, logit_budget).run()
    scores = np.array([string.score(reduction) for string in strings])
    if not np.isfinite(scores).all():
        i = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(
            f"The score of choice {i % n_choices} of prompt {i // n_choices} is not finite; load "
            "the model in float32."
        )
    n_scored = np.array([len(string.ids) - string.start for string in strings])
    shape = (-1, n_choices)
    result = Scored(scores.reshape(shape), n_scored.reshape(shape), np.array(n_cut).reshape(shape))
    return result if details else result.scores


# -- strings ---------------------------------------------------------------------------------------


@dataclass
class _String:
    """Token ids of a prompt and a choice, and the log-probabilities found so far.

    ``logprobs[t]`` is that of token t after those before it; token 0 is never predicted.
    """

    ids: list[int]
    start: int  # the first token that is scored
    logprobs: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.logprobs = np.zeros(len(self.ids))

    @property
    def fed(self) -> list[int]:
        """What goes into the model: all but the last token, after which nothing is scored."""
        return self.ids[:-1]

    def score(self, reduction: str) -> float:
        scored = self.logprobs[self.start :]
        return float(scored.mean() if reduction == "mean" else scored.sum())


def _check_arguments(
    reduction: str,
    span: str,
    truncation: str,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
) -> int:
    """The number of choices that every prompt has."""
    for name, value in {"reduction": reduction, "span": span, "truncation": truncation}.items():
        if value not in ALLOWED[name]:
            raise ValueError(f"{name} is {value!r}; allowed: {', '.join(ALLOWED[name])}.")
    if isinstance(prompts, str) or isinstance(choices, str):
        raise TypeError("prompts and choices are lists, not one string: put it into a list.")
    for number, texts in enumerate(choices):
        if isinstance(texts, str):
            raise TypeError(
                f"The choices of prompt {number} are one string, {texts!r}: give a list of texts."
            )
    counts = {len(texts) for texts in choices}
    if len(prompts) != len(choices) or len(counts) != 1 or counts == {0}:
        raise ValueError(
            f"{len(prompts)} prompts and {len(choices)} lists of {sorted(counts)} choices; every "
            "prompt needs as many."
        )
    return counts.pop()


def _limit(lm: LanguageModel, max_length: int | None) -> int | None:
    """Tokens that may go in."""
    if max_length is None:
        return lm.max_positions
    if (
        isinstance(max_length, bool)
        or not isinstance(max_length, int)
        or max_length <= len(lm.prefix)
    ):
        raise ValueError(
            f"max_length is {max_length!r}; allowed: a whole number above {len(lm.prefix)}, the "
            "special tokens in front, or None for what the model takes."
        )
    lm.check_length(max_length)
    return max_length


def _strings(
    lm: LanguageModel,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    span: str,
    n_choices: int,
) -> list[_String]:
    """One a prompt and choice, prompt by prompt."""
    texts = [prompt + choice for prompt, of_prompt in zip(prompts, choices) for choice in of_prompt]
    ids = encode(lm, texts)
    if span == "full":
        starts = [1] * len(prompts)
    else:
        starts = [len(row) or 1 for row in _encode_beginnings(lm, prompts)]
    strings = []
    for i, row in enumerate(ids):
        number, choice = divmod(i, n_choices)
        if starts[number] >= len(row):
            raise ValueError(
                f"Choice {choice} of prompt {number} adds no token to score: after "
                f"{prompts[number][-40:]!r}, the choice {choices[number][choice]!r} merges into "
                "the tokens of the prompt. Put a space in front of the choice, or score the whole "
                "string: span='full'."
            )
        strings.append(_String(row, starts[number]))
    return strings


def _encode_beginnings(lm: LanguageModel, prompts: Sequence[str]) -> list[list[int]]:
    """Ids of prompts without the spaces at their ends, which are counted with the choice."""
    stripped = [prompt.rstrip() or prompt for prompt in prompts]
    return encode(lm, stripped)


def _cut(
    lm: LanguageModel, strings: list[_String], limit: int | None, truncation: str
) -> list[int]:
    """Cut what does not fit, on the left but after the special tokens in front.

    How many tokens of each string.
    """
    n_cut = [max(0, len(string.fed) - limit) if limit else 0 for string in strings]
    if any(n_cut) and truncation == "error":
        longest = max(len(string.ids) for string in strings)
        raise ValueError(
            f"A string of {longest} tokens; {limit} fit. Shorten the texts, use fewer shots, or "
            "cut them: truncation='left'."
        )
    n_kept = len(lm.prefix)
    for i, cut in enumerate(n_cut):
        if cut:
            ids = strings[i].ids
            shortened = ids[:n_kept] + ids[n_kept + cut :]
            strings[i] = _String(shortened, max(1, strings[i].start - cut))
    return n_cut


# -- units: strings that start alike ---------------------------------------------------------------


@dataclass
class _Unit:
    """Strings (by number) whose first ``shared`` tokens are the same."""

    members: list[int]
    shared: int


def _units(fed: list[list[int]]) -> list[_Unit]:
    """The sorted strings, cut into units so that the fewest tokens are computed."""
    order = sorted(range(len(fed)), key=lambda i: fed[i])
    ordered = [fed[i] for i in order]
    common = [0] + [_common_length(a, b) for a, b in itertools.pairwise(ordered)]
    begins = _best_cuts([len(row) for row in ordered], common)
    units = []
    end = len(ordered)
    while end:
        begin = begins[end]
        shared = min([len(ordered[begin]), *common[begin + 1 : end]])
        units.append(_Unit(order[begin:end], shared))
        end = begin
    return units


def _best_cuts(lengths: list[int], common: list[int]) -> list[int]:
    """Where the last unit of the first n strings begins, for every n.

    By dynamic programming on the tokens saved.
    """
    saved = [0]
    begins = [0]
    for end in range(1, len(lengths) + 1):
        shared = lengths[end - 1]
        best = (saved[-1], end - 1)  # a unit of one string saves nothing
        for begin in range(end - 2, max(-1, end - 1 - MAX_UNIT), -1):
            shared = min(shared, common[begin + 1])
            best = max(best, (saved[begin] + (end - begin - 1) * shared, begin))
        saved.append(best[0])
        begins.append(best[1])
    return begins


def _common_length(a: list[int], b: list[int]) -> int:
    length = 0
    for x, y in zip(a, b):
        if x != y:
            break
        length += 1
    return length


# -- passes ----------------------------------------------------------------------------------------

#: At one hidden state: {token: [(string, index of the token in it)]} whose log-probability it
#: gives.
Wanted = dict[int, list[tuple[int, int]]]


@dataclass
class _Rest:
    """What follows the shared prefix in one string."""

    row: int  # of the prefix in its batch
    string: int
    ids: list[int]


class _Scoring:
    """Fills in the log-probabilities of strings, unit by unit."""

    def __init__(
        self, lm: LanguageModel, strings: list[_String], token_budget: int, logit_budget: int
    ):
        self.lm = lm
        self.strings = strings
        self.token_budget = token_budget
        self.logit_budget = logit_budget
        self.units = _units([string.fed for string in strings])
        # Final hidden states that wait for the head, and what is wanted of each.
        self.states: list[Tensor] = []
        self.wanted: list[Wanted] = []

    def run(self) -> None:
        lengths = [unit.shared for unit in self.units]
        equal = not self.lm.pads_left
        run_in_batches(lengths, self.token_budget, self._run_units, "scoring", equal_lengths=equal)
        self._ask_head()

    def _run_units(self, numbers: list[int]) -> None:
        """The prefixes of some units in one pass, and what follows them from the cache."""
        units = [self.units[number] for number in numbers]
        beginnings = [self.strings[unit.members[0]].fed[: unit.shared] for unit in units]
        # Prefixes end together, so that the rest follows at once.
        prefixes, mask = padded(beginnings, "cpu", side="left")
        rests = self._rests(units)
        output = self.lm.run(prefixes, mask, use_cache=bool(rests))
        self._keep(output[0], self._wanted_of_prefixes(units, prefixes.shape[1]))
        if rests:
            costs = [
                len(rest.ids) + int(units[rest.row].shared * CACHED_TOKEN_COST) for rest in rests
            ]

            def run_rests(chosen: list[int]) -> None:
                part = [rests[number] for number in chosen]
                self._run_rests(part, units, mask, output.past_key_values)

            run_in_batches(costs, self.token_budget, run_rests)

    def _rests(self, units: list[_Unit]) -> list[_Rest]:
        found = []
        for row, unit in enumerate(units):
            for number in unit.members:
                ids = self.strings[number].fed[unit.shared :]
                if ids:
                    found.append(_Rest(row, number, ids))
        return found

    def _wanted_of_prefixes(self, units: list[_Unit], width: int) -> dict[tuple[int, int], Wanted]:
        """{(row, position in the batch): what is wanted there}."""
        wanted: dict[tuple[int, int], Wanted] = {}
        for row, unit in enumerate(units):
            padding = width - unit.shared
            for number in unit.members:
                string = self.strings[number]
                for t in range(string.start, unit.shared + 1):
                    place = wanted.setdefault((row, padding + t - 1), {})
                    place.setdefault(string.ids[t], []).append((number, t))
        return wanted

    def _run_rests(self, rests: list[_Rest], units: list[_Unit], mask: Tensor, cache: Any) -> None:
        rows = torch.tensor([rest.row for rest in rests])
        tokens, rest_mask = padded([rest.ids for rest in rests], "cpu")
        whole_mask = torch.cat([mask[rows], rest_mask], dim=1)
        branch = _branch(cache, rows.to(self.lm.device))
        hidden = self.lm.run(tokens, whole_mask, past_key_values=branch)[0]
        self._keep(hidden, self._wanted_of_rests(rests, units))

    def _wanted_of_rests(
        self, rests: list[_Rest], units: list[_Unit]
    ) -> dict[tuple[int, int], Wanted]:
        """The same tokens after the same prefix end in the same hidden state.

        One place serves all such strings.
        """
        wanted: dict[tuple[int, int], Wanted] = {}
        places: dict[tuple[int, ...], tuple[int, int]] = {}
        for k, rest in enumerate(rests):
            string, shared = self.strings[rest.string], units[rest.row].shared
            for t in range(max(shared + 1, string.start), len(string.ids)):
                beginning = (rest.row, *rest.ids[: t - shared])
                place = places.setdefault(beginning, (k, t - shared - 1))
                of_token = wanted.setdefault(place, {}).setdefault(string.ids[t], [])
                of_token.append((rest.string, t))
        return wanted

    def _keep(self, hidden: Tensor, wanted: dict[tuple[int, int], Wanted]) -> None:
        """Take over hidden states (batch, length, hidden) where something is wanted."""
        if wanted:
            rows, positions = torch.tensor(list(wanted), device=hidden.device).T
            self.states.append(hidden[rows, positions])
            self.wanted.extend(wanted.values())
        if len(self.wanted) >= self.logit_budget:
            self._ask_head()

    def _ask_head(self) -> None:
        """Log-probabilities from all states that wait, ``logit_budget`` at a time."""
        if not self.wanted:
            return
        states = torch.cat(self.states)
        for begin in range(0, len(self.wanted), self.logit_budget):
            part = self.wanted[begin : begin + self.logit_budget]
            pairs = [(n, token) for n, wanted in enumerate(part) for token in wanted]
            rows, tokens = torch.tensor(pairs).T
            hidden = states[begin : begin + self.logit_budget]
            values = self.lm.log_probabilities(hidden, rows, tokens).tolist()
            for (n, token), value in zip(pairs, values):
                for number, t in part[n][token]:
                    self.strings[number].logprobs[t] = value
        self.states.clear()
        self.wanted.clear()


def _branch(cache: Any, rows: Tensor) -> Any:
    """A cache of the given rows of ``cache``, which stays as it is."""
    branch = copy.copy(cache)
    branch.layers = [copy.copy(layer) for layer in cache.layers]
    branch.batch_select_indices(rows)
    return branch
