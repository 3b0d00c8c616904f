"""Wanda.

This package against the published procedure written out plainly, and against bare forward passes.

Models: the default one, and a random one of the shape of XGLM-564M.  All times of a model are taken
in one run, so that the ratios mean something on any machine; where others share it, those of
processor time with OMP_NUM_THREADS=1. ``--prompts 4`` makes it short.

- published (arXiv 2306.11695 and its code): a prompt at a time, padded to 512 tokens; every block
  runs twice over all prompts, the last one too; a full stable sort of every row.  Its capture of
  inputs stops before block 0.  Padding is left out of its norms here, so that both must find the
  same masks.  They do in float64.  In float32, batches round differently, some near-ties fall the
  other way, and every one of them alters what the next blocks see.
- bare: the passes that cannot be avoided, in batches without padding to 512: every block once dense
  and once pruned, the last one once.  Nothing is measured, nothing pruned.
- package: ``prune`` as users call it, with its checks, fingerprints and report.
"""

import argparse
import threading
import time

import numpy as np
import psutil
import torch
import transformers

import mlprune_helpers as mh
from mlprune_helpers.pruning.walk import into_blocks

SPARSITY, LENGTH = 0.3, 512
FRENCH = "la porte du vieux marché reste ouverte pendant que les enfants jouent près de notre rivière et parlent avec leurs voisins".split()  # noqa: E501
ENGLISH = "the door of that old market stays open while children play near our river and talk with their neighbours today".split()  # noqa: E501


def made_up_prompts(n, seed=0):
    """Four-shot translation prompts with sentences as long as news has them: 15 to 30 words."""
    rng = np.random.default_rng(seed)
    shot = "French: {}.\nEnglish: {}.\n"
    sentence = lambda words: " ".join(rng.choice(words, rng.integers(15, 31)))  # noqa: E731
    return [
        "".join(shot.format(sentence(FRENCH), sentence(ENGLISH)) for _ in range(4))
        for _ in range(n)
    ]


def published(lm, prompts):
    """{name: mask}; prunes ``lm``."""
    names = {id(module): name for name, module in lm.prunable.items()}
    inputs = into_blocks(lm, {"": prompts}, LENGTH, "counted", LENGTH)  # padded, one by one
    masks = {}
    for prompt, one in zip(prompts, inputs):
        one.counted = torch.arange(LENGTH)[None] < len(lm.tokenizer(prompt)["input_ids"])
    for layer, block in enumerate(lm.layers):
        matrices = {names[id(m)]: m for m in block.modules() if id(m) in names}
        squares = dict.fromkeys(matrices, 0.0)
        for one in inputs:
            handles, real = [], int(one.counted.sum())
            for name, module in matrices.items():

                def add(module, args, output, name=name, real=real):
                    rows = args[0].reshape(-1, args[0].shape[-1])[:real]
                    squares[name] += torch.norm(rows.T, p=2, dim=1) ** 2  # noqa: B023

                handles.append(module.register_forward_hook(add))
            one.through(block, layer)
            for handle in handles:
                handle.remove()
        for name, module in matrices.items():
            weight = mh.weight_matrix(module)
            score = weight.abs() * squares[name].sqrt()
            lowest = torch.sort(score, dim=-1, stable=True)[1][:, : int(weight.shape[1] * SPARSITY)]
            masks[name] = torch.zeros_like(weight, dtype=torch.bool).scatter_(1, lowest, True)
            weight[masks[name]] = 0
        for one in inputs:
            one.hidden = one.through(block, layer)
    return masks


def bare(lm, prompts):
    batches = into_blocks(lm, {"": prompts}, LENGTH, "masked", 2048)
    for layer, block in enumerate(lm.layers):
        for _ in range(2 if layer + 1 < len(lm.layers) else 1):
            hidden = [batch.through(block, layer) for batch in batches]
        for batch, output in zip(batches, hidden):
            batch.hidden = output


def measured(run):
    """(result, seconds on the clock and of the processor, MB of memory at its peak over what was used before)."""  # noqa: E501
    process, done, peak = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter(), time.process_time()
    try:
        result = run()
    finally:
        seconds = time.perf_counter() - started[0], time.process_time() - started[1]
        done.set()
        watcher.join()
    return result, seconds, peak[0] / 1e6


def xglm(lm):
    """24 blocks, width 1024, inner width 4096, as facebook/xglm-564M.

    The tokenizer is that of ``lm``.
    """
    config = transformers.XGLMConfig(
        vocab_size=len(lm.tokenizer), d_model=1024, ffn_dim=4096, num_layers=24, attention_heads=16
    )
    torch.manual_seed(0)
    return mh.LanguageModel(
        "xglm-564m-shaped", transformers.AutoModelForCausalLM.from_config(config), lm.tokenizer
    )


def compare(lm, prompts):
    tokens = [min(len(lm.tokenizer(p)["input_ids"]), LENGTH) for p in prompts]
    print(
        f"\n{lm.name}: {len(prompts)} prompts of {np.mean(tokens):.0f} tokens, "
        f"{torch.get_num_threads()} threads"
    )
    dense = {name: mh.weight_matrix(module).clone() for name, module in lm.prunable.items()}
    times, memory, masks = {}, {}, {}
    bare(lm, prompts[:2])
    assert (
        lm.fingerprint
    )  # reads all weights: those not yet read from the file would count as memory of ours
    for name, run in {
        "bare": lambda: bare(lm, prompts),
        "package": lambda: mh.prune(lm, prompts, sparsity=SPARSITY, max_length=LENGTH).masks,
        "published": lambda: published(lm, prompts),
    }.items():
        masks[name], times[name], memory[name] = measured(run)
        for matrix, module in lm.prunable.items():
            mh.weight_matrix(module).copy_(dense[matrix])
        clock, processor = times[name]
        print(
            f"  {name:10}{clock:8.1f} s, {processor:7.1f} s of the processor,{memory[name]:6.0f} "
            f"MB more memory",
            flush=True,
        )
    for above, below, asked in (
        ("published", "package", "at least 2"),
        ("package", "bare", "at most 1.3"),
    ):
        clock, processor = (a / b for a, b in zip(times[above], times[below]))
        print(
            f"  {above} / {below}: {clock:.2f} on the clock, {processor:.2f} of the processor "
            f"(asked: {asked})"
        )
    of_first = [name for name in dense if ".0." in name]
    for what, names, allowed in ("block 0", of_first, 1e-4), ("all blocks", list(dense), 1e-2):
        share = np.mean(
            [(masks["package"][n] != masks["published"][n]).double().mean() for n in names]
        )
        print(
            f"  masks of {what} differ at {share:.1e} of the weights, by rounding (at most "
            f"{allowed:.0e})"
        )
        assert share <= allowed


def compare_exactly(lm, prompts):
    lm.model.double()
    dense = {name: mh.weight_matrix(module).clone() for name, module in lm.prunable.items()}
    ours = mh.prune(lm, prompts, sparsity=SPARSITY, max_length=LENGTH).masks
    for name, module in lm.prunable.items():
        mh.weight_matrix(module).copy_(dense[name])
    theirs = published(lm, prompts)
    differing = sum(int((ours[name] != theirs[name]).sum()) for name in dense)
    print(f"  in float64, on {len(prompts)} prompts: masks differ at {differing} weights")
    assert differing == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--only", choices=["gemma", "xglm", "exact"])
    options = parser.parse_args()
    prompts, gemma = made_up_prompts(options.prompts), mh.load_model(device="cpu")
    if options.only in (None, "gemma"):
        compare(gemma, prompts)
    if options.only in (None, "xglm"):
        compare(xglm(gemma), prompts)
    if options.only in (None, "exact"):
        compare_exactly(gemma, prompts[:2])
