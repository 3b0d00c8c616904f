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

    # Choices of one prompt share a prefix: its log-likelihoods are the same, so they are computed once.
    shared = [_shared_prefix(ids[i : i + n_choices]) for i in range(0, len(ids), n_choices)]
    logprob = [np.zeros(len(x)) for x in ids]  # of token t, at t; index 0 is never predicted
    bar = tqdm(total=len(ids), desc="scoring", leave=False)

    def run(indices: list[int]) -> None:
        wanted = []
        for row, i in enumerate(indices):
            first_choice = i % n_choices == 0
            start = starts[i] if first_choice else max(starts[i], shared[i // n_choices])
            wanted += [(row, i, t) for t in range(start, len(ids[i]))]
        input_ids, mask = padded([ids[i] for i in indices], lm.device)
        values = _token_logprobs(lm, input_ids, mask, [(row, t) for row, _, t in wanted], logit_budget)
        for (_, i, t), value in zip(wanted, values):
            logprob[i][t] = value
        bar.update(len(indices))

    with bar:
        run_in_batches([len(x) for x in ids], token_budget, run)

    scores = np.zeros(len(ids))
    for i, tokens in enumerate(ids):
        first = i - i % n_choices
        common = min(shared[i // n_choices], len(tokens))
        logprob[i][:common] = logprob[first][:common]
        part = logprob[i][starts[i] :]
        scores[i] = part.mean() if reduction == "mean" else part.sum()
    if not np.isfinite(scores).all():
        i = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"The score of choice {i % n_choices} of prompt {i // n_choices} is not finite; load the model in float32.")
    return scores.reshape(-1, n_choices)


def _shared_prefix(rows: list[list[int]]) -> int:
    """Number of leading tokens that all rows share."""
    first, *others = rows
    n = min(map(len, rows))
    return next((t for t in range(n) if any(first[t] != other[t] for other in others)), n)


def _token_logprobs(lm, input_ids, mask, positions: list[tuple[int, int]], logit_budget: int) -> list[float]:
    """Log-probability of token t of row r, for each (r, t) in ``positions``; logits only where they are needed."""
    values = []
    with torch.inference_mode():
        hidden = lm.decoder(input_ids=input_ids, attention_mask=mask, use_cache=False)[0]
        for k in range(0, len(positions), logit_budget):
            rows, ts = torch.tensor(positions[k : k + logit_budget], device=hidden.device).T
            logits = lm.logits(hidden[rows, ts - 1]).float()
            targets = input_ids.to(logits.device)[rows, ts]
            values.append(logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1))
    return torch.cat(values).tolist() if values else []
