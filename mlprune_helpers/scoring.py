"""Log-likelihood of choices: which continuation does the model find likeliest?

Strings that start alike form a unit.  Its common prefix runs once, and its strings go on from the cached keys and
values.  The output head, dear where the vocabulary is large, runs only where a token is scored, and once for all
strings that are the same up to there.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from .batching import encode, padded, run_in_batches
from .models.language_model import LanguageModel

ALLOWED = {
    "reduction": ("mean", "sum"),
    "span": ("full", "continuation"),
    "truncation": ("left", "error"),
}
MAX_UNIT = 64  # strings in a unit; bounds the search for units


class Scored(NamedTuple):
    """Three arrays (n_prompts, n_choices)."""

    scores: np.ndarray
    n_tokens: np.ndarray  # that were scored
    n_cut: np.ndarray  # that did not fit


def score_choices(
    lm: LanguageModel, prompts: Sequence[str], choices: Sequence[Sequence[str]], *, reduction: str = "mean",
    span: str = "full", max_length: int | None = None, truncation: str = "left", details: bool = False,
    token_budget: int | None = None, logit_budget: int = 1024,
) -> np.ndarray | Scored:  # fmt: skip
    """Token log-likelihood (n_prompts, n_choices) of prompt + choice, tokenized as one string; higher is likelier.

    ``span``: ``"full"``, every token that is predicted, T - 1 of T (the paper, with ``reduction="mean"``);
    ``"continuation"``, tokens from index ``len(tok(prompt))`` on, spaces at the prompt's end counted with the choice, as
    lm-evaluation-harness has it (with ``"sum"``).  ``max_length``: tokens that may go in, the last of a string never
    does (default: what the model takes).  ``truncation``: of a longer string the earliest tokens are cut (``"left"``),
    except a beginning-of-sequence token, or it is an ``"error"``.  ``details``: return a :class:`Scored`; without it, a
    cut is a warning.  ``token_budget``: padded tokens in a batch (default 1,024 on a CPU, else 16,384);
    ``logit_budget``: positions whose logits are held at once; results do not depend on either.

    Raises ValueError for ragged choices, an empty span, a string too long, or a score that is not finite.
    """
    for name, value in {"reduction": reduction, "span": span, "truncation": truncation}.items():
        if value not in ALLOWED[name]:
            raise ValueError(f"{name} is {value!r}; allowed: {', '.join(ALLOWED[name])}.")
    n_choices = {len(c) for c in choices}
    if len(prompts) != len(choices) or len(n_choices) != 1:
        raise ValueError(
            f"{len(prompts)} prompts and {len(choices)} lists of {sorted(n_choices)} choices; every prompt needs as many."
        )
    (n_choices,) = n_choices
    ids = encode(lm, [p + c for p, cs in zip(prompts, choices) for c in cs])
    starts = [1] * len(ids)
    if span == "continuation":
        starts = [
            len(x) for x in encode(lm, [p.rstrip() or p for p in prompts]) for _ in range(n_choices)
        ]
    for i in range(len(ids)):
        if starts[i] >= len(ids[i]):
            raise ValueError(
                f"Choice {i % n_choices} of prompt {i // n_choices} adds no token to score."
            )
    limit = max_length or lm.max_positions
    n_cut = [max(0, len(x) - 1 - limit) if limit else 0 for x in ids]
    if any(n_cut) and truncation == "error":
        raise ValueError(
            f"A string of {max(map(len, ids))} tokens; {limit} fit. Shorten the texts, use fewer shots, or cut them: truncation='left'."
        )
    if any(n_cut) and not details:
        warnings.warn(
            f"{np.count_nonzero(n_cut)} of {len(ids)} strings were cut on the left to {limit} tokens.",
            stacklevel=2,
        )
    for i in np.flatnonzero(n_cut):
        kept = int(ids[i][0] == lm.tokenizer.bos_token_id)
        ids[i] = ids[i][:kept] + ids[i][kept + n_cut[i] :]
        starts[i] = max(1, starts[i] - n_cut[i])

    logprob = [np.zeros(len(x)) for x in ids]  # of token t, at t; index 0 is never predicted
    token_budget = token_budget or (1024 if lm.device.type == "cpu" else 16384)
    with torch.inference_mode():
        _fill(lm, ids, starts, logprob, token_budget, logit_budget)

    parts = [x[start:] for x, start in zip(logprob, starts)]
    scores = np.array([getattr(x, reduction)() for x in parts])
    if not np.isfinite(scores).all():
        i = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(
            f"The score of choice {i % n_choices} of prompt {i // n_choices} is not finite; load the model in float32."
        )
    result = Scored(
        *(np.array(x).reshape(-1, n_choices) for x in (scores, [len(x) for x in parts], n_cut))
    )
    return result if details else result.scores


def _units(ids: list[list[int]]) -> list[tuple[list[int], int]]:
    """(strings, number of leading tokens they share): the sorted strings, cut so that the fewest tokens are computed.

    The last token of a string is never fed.
    """
    order = sorted(range(len(ids)), key=lambda i: ids[i][:-1])
    fed = [ids[i][:-1] for i in order]
    common = [0] + [
        sum(itertools.takewhile(bool, (x == y for x, y in zip(*pair))))
        for pair in itertools.pairwise(fed)
    ]
    best = [(0, 0)]  # of the first n strings: tokens saved, and where the last run begins
    for end in range(1, len(fed) + 1):
        shared, found = len(fed[end - 1]), [(best[-1][0], end - 1)]
        for begin in range(end - 2, max(-1, end - 1 - MAX_UNIT), -1):
            shared = min(shared, common[begin + 1])
            found.append((best[begin][0] + (end - begin - 1) * shared, begin))
        best.append(max(found))  # of equals, the shortest run
    units, end = [], len(fed)
    while end:
        begin = best[end][1]
        units.append((order[begin:end], min([len(fed[begin]), *common[begin + 1 : end]])))
        end = begin
    return units


def _fill(lm, ids, starts, logprob, token_budget: int, logit_budget: int) -> None:
    """Write the log-probability of every scored token into ``logprob``."""
    units = _units(ids)
    states, targets = (
        [],
        [],
    )  # final hidden states; for each, {token: [(string, index of the token)]}

    def run(indices: list[int]) -> None:
        batch = [units[k] for k in indices]
        # Prefixes end together, so that the rest follows at once.
        prefixes, mask = padded(
            [ids[members[0]][:shared] for members, shared in batch], "cpu", side="left"
        )
        width = prefixes.shape[1]
        rests, wanted = (
            [],
            {},
        )  # what follows the prefixes; (row, position) → {token: [(string, index of the token)]}
        for row, (members, shared) in enumerate(batch):
            for i in members:
                for t in range(starts[i], shared + 1):
                    wanted.setdefault((row, width - shared + t - 1), {}).setdefault(
                        ids[i][t], []
                    ).append((i, t))
                if shared < len(ids[i]) - 1:
                    rests.append((row, i, ids[i][shared:-1]))
        output = lm.run(prefixes, mask, use_cache=bool(rests))
        collect(output[0], wanted)

        def run_rests(chosen: list[int]) -> None:
            part = [rests[k] for k in chosen]
            rows = torch.tensor([row for row, _, _ in part])
            tokens, rest_mask = padded([rest for _, _, rest in part], "cpu")
            branch = copy.copy(
                output.past_key_values
            )  # its layers are changed below, the cache itself is not
            branch.layers = [copy.copy(layer) for layer in branch.layers]
            branch.batch_select_indices(rows.to(lm.device))
            hidden = lm.run(
                tokens, torch.cat([mask[rows], rest_mask], dim=1), past_key_values=branch
            )[0]
            wanted, places = (
                {},
                {},
            )  # the same tokens after the same prefix end in the same hidden state: one place
            for k, (row, i, rest) in enumerate(part):
                shared = batch[row][1]
                for t in range(max(shared + 1, starts[i]), len(ids[i])):
                    place = places.setdefault((row, *rest[: t - shared]), (k, t - shared - 1))
                    wanted.setdefault(place, {}).setdefault(ids[i][t], []).append((i, t))
            collect(hidden, wanted)

        # A cached token is copied, not computed: it counts an eighth.
        run_in_batches(
            [len(rest) + batch[row][1] // 8 for row, _, rest in rests], token_budget, run_rests
        )

    def collect(hidden: torch.Tensor, wanted: dict) -> None:
        if wanted:
            states.append(hidden[*torch.tensor(list(wanted), device=hidden.device).T])
            targets.extend(wanted.values())
        if len(targets) >= logit_budget:
            write()

    def write() -> None:
        for begin in range(0, len(targets), logit_budget):
            part = targets[begin : begin + logit_budget]
            pairs = [(n, token) for n, tokens in enumerate(part) for token in tokens]
            where, tokens = torch.tensor(pairs).T
            values = lm.log_probabilities(
                torch.cat(states)[begin : begin + logit_budget], where, tokens
            )
            for (n, token), value in zip(pairs, values.tolist()):
                for i, t in part[n][token]:
                    logprob[i][t] = value
        states.clear()
        targets.clear()

    run_in_batches([shared for _, shared in units], token_budget, run, "scoring")
    write()
