"""Time ``translate`` against transformers' own batched ``generate``, 20 sentences, both directions.

    python tests/benchmarks/translation_speed.py [--sentences 20]

``generate`` gets the same prompts, padded on the left in one batch, decodes greedily, and stops a
sentence at its line's end (``stop_strings``).  Its outputs are cut where ours are.
The two take turns in one process.
"""

import argparse
import re
import time

import torch
from transformers import GenerationConfig

from mlprune_helpers import build_demonstrations, encode, load_model, load_parallel, translate
from mlprune_helpers.batching import padded
from mlprune_helpers.prompts import translation_prompt

NEW_TOKENS = 64


def generated(lm, sentences, source, target, demonstrations):
    """What transformers' generate makes of the prompts."""
    prompts = [translation_prompt(s, source, target, demonstrations) for s in sentences]
    ids, mask = padded(encode(lm, prompts), lm.device, side="left")
    settings = GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        stop_strings=["\n", "French:", "English:"],
        eos_token_id=sorted(lm.end_tokens),
        pad_token_id=min(lm.end_tokens),
    )
    with torch.inference_mode():
        rows = lm.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=settings,
            tokenizer=lm.tokenizer,
        )
    texts = lm.tokenizer.batch_decode(rows[:, ids.shape[1] :], skip_special_tokens=True)
    return [re.split("\n|French:|English:", text)[0].strip() for text in texts]


def timed(run):
    started = time.perf_counter()
    return run(), time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sentences", type=int, default=20)
    n_sentences = parser.parse_args().sentences
    lm = load_model(device="cpu")
    dev = load_parallel(["en", "fr"], split="dev")
    test = load_parallel(["en", "fr"], split="test").select(range(n_sentences))
    for source, target in (("fr", "en"), ("en", "fr")):
        demonstrations = build_demonstrations(dev, source, target, shots=4, n_prompts=1)[0]
        asked = (lm, test[source][:], source, target, demonstrations)
        ours, first = timed(lambda asked=asked: translate(*asked, max_new_tokens=NEW_TOKENS))
        theirs, slow = timed(lambda asked=asked: generated(*asked))
        again = [
            timed(lambda asked=asked: translate(*asked, max_new_tokens=NEW_TOKENS))[1]
            for _ in range(2)
        ]
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        median = sorted([first, *again])[1]
        print(
            f"{source} to {target}: translate {median:.1f} s (median of 3), generate {slow:.1f} s, "
            f"{slow / median:.2f} times as long (asked: at least 2); "
            f"{same} of {n_sentences} outputs the same"
        )


if __name__ == "__main__":
    main()
