"""Time scoring on 96 rows of natural-language inference.

Against the published procedure and lm-evaluation-harness.

    python tests/benchmarks/scoring_speed.py [FOLDER]

FOLDER, or the variable MLPRUNE_DATA, has XNLI as ``xnli/validation.en.jsonl``; without it, the
built-in task serves. The three take turns in one process.
"""

import os
import sys
import threading
import time

import numpy as np
import psutil
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mlprune_helpers import DataError, load_model, load_task, score_choices, task_prompts
from mlprune_helpers.batching import encode

N_ROWS, TOKEN_BUDGET = 96, 1024


def questions():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MLPRUNE_DATA")
    task, source = ("xnli", folder) if folder else ("nli", "builtin")
    try:
        rows = load_task(task, "en", source, limit=N_ROWS)
    except DataError as error:
        sys.exit(f"{error}\nName a folder with xnli/validation.en.jsonl.")
    print(f"{len(rows)} rows of {task} ({source}), {torch.get_num_threads()} threads")
    return task_prompts(task, rows)


@torch.inference_mode()
def published(lm, prompts, choices, batch=32):
    """The procedure of arXiv 2409.16911.

    A padded batch of 32 per label, logits everywhere, mean over the string.
    """
    scores = np.zeros((len(prompts), len(choices[0])))
    for label in range(scores.shape[1]):
        for k in range(0, len(prompts), batch):
            ids = encode(
                lm, [p + c[label] for p, c in zip(prompts[k : k + batch], choices[k : k + batch])]
            )
            length = max(map(len, ids))
            tokens = torch.tensor([x + [0] * (length - len(x)) for x in ids])
            mask = torch.tensor([[1] * len(x) + [0] * (length - len(x)) for x in ids])
            logits = lm.model(input_ids=tokens, attention_mask=mask).logits
            loss = nn.functional.cross_entropy(
                logits[:, :-1].reshape(-1, logits.shape[-1]),
                tokens[:, 1:].reshape(-1),
                reduction="none",
            )
            loss = loss.reshape(len(ids), -1) * mask[:, 1:]
            scores[k : k + len(ids), label] = -(loss.sum(1) / mask[:, 1:].sum(1))
    return scores


def harness(lm, prompts, choices):
    """lm-evaluation-harness's HF backend, as many padded tokens in a batch as this package takes."""  # noqa: E501
    longest = max(map(len, encode(lm, [p + c for p, cs in zip(prompts, choices) for c in cs])))
    requests = [
        Instance("loglikelihood", {}, (p, c), 0) for p, cs in zip(prompts, choices) for c in cs
    ]
    backend = HFLM(
        pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=max(1, TOKEN_BUDGET // longest)
    )
    values = backend.loglikelihood(requests, disable_tqdm=True)
    return np.array([value for value, _ in values]).reshape(len(prompts), -1)


def timed(run):
    started = time.perf_counter()
    return run(), time.perf_counter() - started


def machine_flops(n=2048, repeats=5):
    a, b = torch.randn(n, n), torch.randn(n, n)
    return 2 * n**3 / min(timed(lambda: a @ b)[1] for _ in range(repeats))


lm = load_model()
prompts, choices = questions()
score_choices(lm, prompts[:2], choices[:2])  # warm up
process = psutil.Process()


class Peak:
    """Largest resident memory while it is active, looked at a hundred times a second."""

    def __enter__(self):
        self.before = self.peak = process.memory_info().rss
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        while not self.done.wait(0.01):
            self.peak = max(self.peak, process.memory_info().rss)

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def ours(**options):
    return score_choices(lm, prompts, choices, token_budget=TOKEN_BUDGET, **options)


with FlopCounterMode(display=False) as counter, Peak() as memory:
    full, first = timed(ours)
machine, flops = machine_flops(), counter.get_total_flops()
print(
    f"this package, as the paper scores          {first:7.1f} s   "
    f"{memory.peak - memory.before >> 20} MB more memory"
)
print(
    f"  matrix products: {flops / first / 1e9:.0f} GFLOP/s, {100 * flops / first / machine:.0f} % "
    f"of the {machine / 1e9:.0f} that 2048-square ones reach here"
)
reference, slow = timed(lambda: published(lm, prompts, choices))
again = timed(ours)[1]
mean = (first + again) / 2
print(f"this package, once more                    {again:7.1f} s")
print(
    f"the published procedure                    {slow:7.1f} s   {slow / mean:.2f} times as long; "
    f"scores differ by {np.abs(full - reference).max():.1e} at most"
)
request = dict(reduction="sum", span="continuation")
summed, first = timed(lambda: ours(**request))
theirs, slow = timed(lambda: harness(lm, prompts, choices))
again = timed(lambda: ours(**request))[1]
mean = (first + again) / 2
print(f"this package, as the harness scores        {first:7.1f} s, {again:.1f} s")
print(
    f"lm-evaluation-harness                      {slow:7.1f} s   {slow / mean:.2f} times as long; "
    f"scores differ by {np.abs(summed - theirs).max():.1e} at most"
)
