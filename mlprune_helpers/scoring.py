"""Log-likelihood of choices: which continuation does the model find likeliest?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm.auto import tqdm

from .models import LanguageModel
from .prompts import encode, padded, run_in_batches

REDUCTIONS = ("mean", "sum")
SPANS = ("full", "continuation")


def score_choices(
    lm: LanguageModel,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    reduction: str = "mean",
    span: str = "full",
    token_budget: int = 2048,
    logit_budget: int = 256,
) -> np.ndarray:
    """Token log-likelihood of prompt + choice, tokenized as one string.

    Parameters
    ----------
    choices : list of str per prompt
        As many for each prompt.
    reduction : {"mean", "sum"}
    span : {"full", "continuation"}
        ``"full"``: every token that is predicted, T - 1 of T (the paper, with ``"mean"``).  ``"continuation"``:
        tokens from index ``len(tok(prompt))`` on, as lm-evaluation-harness counts them (with ``"sum"``).
    token_budget, logit_budget : int
        Padded tokens in a batch, and positions whose logits are held at once.  Results do not depend on them.

    Returns
    -------
    array (n_prompts, n_choices)
        Higher is likelier.

    Raises
    ------
    ValueError
        Ragged choices, an empty span, a string longer than the model takes, or a score that is not finite.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; allowed: {', '.join(REDUCTIONS)}.")
    if span not in SPANS:
        raise ValueError(f"span is {span!r}; allowed: {', '.join(SPANS)}.")
    n_choices = {len(c) for c in choices}
    if len(prompts) != len(choices) or len(n_choices) != 1:
        raise ValueError(f"{len(prompts)} prompts and {len(choices)} lists of {sorted(n_choices)} choices; every prompt needs as many.")
    (n_choices,) = n_choices
    ids = encode(lm, [p + c for p, cs in zip(prompts, choices) for c in cs])
    longest = max(map(len, ids))
    if lm.max_positions and longest > lm.max_positions:
        raise ValueError(f"A string of {longest} tokens; {lm.name} takes {lm.max_positions}. Shorten the texts or use fewer shots.")
    if span == "full":
        starts = [1] * len(ids)
    else:
        starts = [len(x) for x in encode(lm, prompts) for _ in range(n_choices)]
    for i, (tokens, start) in enumerate(zip(ids, starts)):
        if start >= len(tokens):
            raise ValueError(f"Choice {i % n_choices} of prompt {i // n_choices} adds no token to score.")

    units = _units(ids, n_choices)
    logprob = [np.zeros(len(x)) for x in ids]  # of token t, at t; index 0 is never predicted
    bar = tqdm(total=len(ids), desc="scoring", leave=False)

    def run(indices: list[int]) -> None:
        batch = [units[k] for k in indices]
        for (i, t), value in _token_logprobs(lm, ids, starts, batch, logit_budget):
            logprob[i][t] = value
        bar.update(sum(len(members) for members, _ in batch))

    with bar:
        run_in_batches([shared + sum(len(ids[i]) - shared for i in members) for members, shared in units], token_budget, run)

    scores = np.zeros(len(ids))
    for members, shared in units:
        for i in members:
            logprob[i][:shared] = logprob[members[0]][:shared]
            part = logprob[i][starts[i] :]
            scores[i] = part.mean() if reduction == "mean" else part.sum()
    if not np.isfinite(scores).all():
        i = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"The score of choice {i % n_choices} of prompt {i // n_choices} is not finite; load the model in float32.")
    return scores.reshape(-1, n_choices)


def _units(ids: list[list[int]], n_choices: int) -> list[tuple[list[int], int]]:
    """(strings, number of leading tokens they share) of each prompt, found on token ids.

    Every string keeps at least one token of its own.  Where the first tokens differ already, each string is a unit.
    """
    units = []
    for first in range(0, len(ids), n_choices):
        members = list(range(first, first + n_choices))
        rows = [ids[i] for i in members]
        limit = min(map(len, rows)) - 1
        shared = next((t for t in range(limit) if len({row[t] for row in rows}) > 1), limit)
        units += [(members, shared)] if shared else [([i], len(ids[i]) - 1) for i in members]
    return units


def _token_logprobs(lm, ids, starts, units, logit_budget: int) -> list[tuple[tuple[int, int], float]]:
    """((string i, token t), log-probability) for every scored token of the units.

    The shared prefix of a unit runs once; its choices go on from the cached keys and values.  The last token of a
    string is never fed, and logits are computed only where a token is scored.
    """
    owners = [(row, i) for row, (members, shared) in enumerate(units) for i in members if len(ids[i]) - shared > 1]
    width = max(shared for _, shared in units)
    offsets = [width - shared for _, shared in units]  # prefixes end together, so that choices follow at once
    prefixes = torch.zeros(len(units), width, dtype=torch.long)
    mask = torch.zeros(len(units), width, dtype=torch.long)
    for row, ((members, shared), offset) in enumerate(zip(units, offsets)):
        prefixes[row, offset:] = torch.tensor(ids[members[0]][:shared])
        mask[row, offset:] = 1
    with torch.inference_mode():
        output = lm.run(prefixes, mask, use_cache=bool(owners))
        places, wanted = [], []  # where the hidden state stands, which (string, token) it predicts
        for row, ((members, shared), offset) in enumerate(zip(units, offsets)):
            first = members[0]
            inside = range(starts[first], shared)
            places += [(row, offset + t - 1) for t in inside] + [(row, width - 1)] * len(members)
            wanted += [(first, t) for t in inside] + [(i, shared) for i in members]
        values = _at(lm, output[0], places, [ids[i][t] for i, t in wanted], logit_budget)
        found = list(zip(wanted, values))
        if owners:
            rests = [ids[i][units[row][1] : -1] for row, i in owners]
            tokens, rest_mask = padded(rests, "cpu")
            rows = torch.tensor([row for row, _ in owners])
            cache = output.past_key_values
            cache.batch_select_indices(rows.to(lm.device))
            hidden = lm.run(tokens, torch.cat([mask[rows], rest_mask], dim=1), past_key_values=cache)[0]
            places, wanted = [], []
            for k, (row, i) in enumerate(owners):
                shared = units[row][1]
                places += [(k, t - shared - 1) for t in range(max(shared + 1, starts[i]), len(ids[i]))]
                wanted += [(i, t) for t in range(max(shared + 1, starts[i]), len(ids[i]))]
            values = _at(lm, hidden, places, [ids[i][t] for i, t in wanted], logit_budget)
            found += zip(wanted, values)
    return found


def _at(lm, hidden, places: list[tuple[int, int]], targets: list[int], logit_budget: int) -> list[float]:
    """Log-probability of each target token after the hidden state at its place (row, position)."""
    values = []
    for k in range(0, len(places), logit_budget):
        rows, positions = torch.tensor(places[k : k + logit_budget], device=hidden.device).T
        logits = lm.logits(hidden[rows, positions]).float()
        target = torch.tensor(targets[k : k + logit_budget], device=logits.device)
        values += (logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(dim=1)).tolist()
    return values
