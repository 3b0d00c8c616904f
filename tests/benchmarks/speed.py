"""Time the slow parts on the default model.

``make bench``.  Texts are made up, so that no data set is needed.
"""

import time

from mlprune_helpers import collect_activations, load_model, pruned, score_choices, translate

PROMPTS = [
    f"French: La porte numéro {i} est ouverte.\nEnglish: Door number {i} is open.\n" * 4
    for i in range(16)
]
QUESTIONS = [f"Door number {i} is open , right?" for i in range(32)]
CHOICES = [[" Yes , we can go in", " Also , it rains", " No , it is shut"]] * 32
SENTENCES = [f"La fenêtre numéro {i} est fermée." for i in range(8)]


def timed(what, run):
    started = time.perf_counter()
    result = run()
    print(f"{what:48}{time.perf_counter() - started:8.1f} s")
    return result


def prune_and_restore(lm):
    with pruned(lm, PROMPTS, sparsity=0.3):
        pass


lm = timed("load the default model", load_model)
timed("fingerprint of its weights", lambda: lm.fingerprint)
timed(f"activations of {len(PROMPTS)} prompts", lambda: collect_activations(lm, PROMPTS))
timed(f"Wanda on {len(PROMPTS)} prompts, and restoring", lambda: prune_and_restore(lm))
timed(
    f"{len(QUESTIONS)} questions with {len(CHOICES[0])} choices",
    lambda: score_choices(lm, QUESTIONS, CHOICES),
)
timed(
    f"{len(SENTENCES)} translations of 16 tokens",
    lambda: translate(lm, SENTENCES, "fr", "en", PROMPTS[0], max_new_tokens=16),
)
