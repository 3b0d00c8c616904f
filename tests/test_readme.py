"""The README's Python examples run as they are printed, one after the other, on a small model."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import transformers
from conftest import ARCHITECTURES

import mlprune_helpers as mh

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:.*strings were cut")
def test_the_examples_run(save_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config_class, settings, *_ = ARCHITECTURES["llama"]
    folder_of_model = save_model(config_class, settings | {"max_position_embeddings": 4096})
    small = mh.load_model(str(folder_of_model), device="cpu")
    monkeypatch.setattr(mh, "load_model", lambda: small)
    known = dict(mh.TASKS)
    folder = tmp_path / "my_folder" / "mytask"
    folder.mkdir(parents=True)
    rows = [
        {"text": text, "label": label}
        for text, label in [("La soupe est chaude.", 1), ("Il pleut.", 0), ("Le pain est bon.", 1)]
    ]
    (folder / "test.fr.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = {}
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(examples) == 4
    try:
        for example in examples:
            exec(example, names)
    finally:
        mh.TASKS.clear()
        mh.TASKS.update(known)
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "gemma-pruned")
    assert names["masks"].keys() == names["lm"].prunable.keys()
    compared = mh.compare(names["dense"], names["sparse"])
    assert isinstance(compared, pd.DataFrame) and set(compared["language"]) == {
        "en",
        "fr",
        "es",
        "average",
    }
    printed = capsys.readouterr().out
    assert "p_holm" in printed and " nats (95 % interval" in printed
