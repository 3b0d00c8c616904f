"""The recipes of CONTRIBUTING.md do what they say: their code runs as it is printed."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import yaml
import zoo
from conftest import SENTENCES, make_tokenizer

import mlprune_helpers as mh
from mlprune_helpers.runs.parameters import DOMAINS
from mlprune_helpers.runs.profiles import declared_parameters

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mlprune_helpers"
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(title: str, language: str) -> list[str]:
    """The fenced blocks of a section in a language, without their indentation."""
    found = BLOCK.findall(section(title))
    return [textwrap.dedent(code) for _, kind, code in found if kind == language]


def data_file(name: str) -> dict:
    return yaml.safe_load((PACKAGE / "data" / name).read_text(encoding="utf-8"))


@pytest.fixture
def small(load, tmp_path, monkeypatch) -> Iterator[mh.LanguageModel]:
    """A small model where a recipe loads one, a folder to work in, and the registries put back."""
    lm = load("llama")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mh, "load_model", lambda *name: lm)
    registries = [mh.METHODS, mh.STATISTICS, mh.TASKS]
    before = [dict(registry) for registry in registries]
    yield lm
    for registry, known in zip(registries, before, strict=True):
        registry.clear()
        registry.update(known)


def inputs_of(lm: mh.LanguageModel, name: str, text: str) -> torch.Tensor:
    """What a matrix of the dense model is given in a plain forward pass, (tokens, in)."""
    seen = []
    hook = lm.prunable[name].register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
    with torch.no_grad():
        lm.model(torch.tensor([lm.tokenizer(text)["input_ids"]]))
    hook.remove()
    return seen[0].double()


def lowest_half(score: torch.Tensor) -> torch.Tensor:
    """True for the lower half of each row."""
    return score.argsort(dim=1).argsort(dim=1) < score.shape[1] // 2


# -- the page itself -------------------------------------------------------------------------------


def test_every_path_exists():
    outside = BLOCK.sub("", TEXT)
    named = set(re.findall(r"`([\w./-]+(?:/[\w.-]+|\.(?:md|py|yml|toml|lock)))`", outside))
    invented = {name for name in named if name.startswith("my_folder/")}
    missing = [name for name in named - invented if not (ROOT / name).exists()]
    assert len(named) > 20 and not missing


def test_every_make_target_exists():
    (commands,) = blocks("Set-up", "bash")
    targets = set(re.findall(r"^make (\S+)", commands, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert targets == {"test", "test-fast", "check", "bounds"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


ROOMS = re.findall(r"^\| `(\w+)` \|", section("The house"), re.MULTILINE)


def test_every_room_is_listed_once():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(ROOMS) == sorted(modules | folders)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room):
    files = [*PACKAGE.glob(f"{room}.py"), *(PACKAGE / room).glob("*.py")]
    used = {name for file in files for name in rooms_imported(file)} - {room}
    assert used <= set(ROOMS[ROOMS.index(room) + 1 :])


def rooms_imported(file: Path) -> Iterator[str]:
    """Rooms of the package that a file imports from, by relative imports up to the package."""
    depth = len(file.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (name.partition(".")[0] for name in names if name.partition(".")[0] in ROOMS)


# -- recipes ---------------------------------------------------------------------------------------


def test_a_score(small, capsys):
    declare, use, _ = blocks("Add a score", "python")
    (text,) = ast.literal_eval(re.search(r"\[.*?\]", use).group())
    name = next(iter(small.prunable))
    inputs = inputs_of(small, name, text)
    weight = small.prunable[name].weight.detach().double().clone()
    names: dict = {}
    exec(declare, names)
    exec(use, names)
    wanted = weight.abs() * (inputs.norm(dim=0) + inputs.std(dim=0, correction=0))
    assert torch.equal(names["report"].masks[name], lowest_half(wanted))
    assert capsys.readouterr().out == "50% of the weights went.\n"


def test_a_statistic(small):
    declare, _, statistic = blocks("Add a score", "python")
    name = next(iter(small.prunable))
    inputs = inputs_of(small, name, SENTENCES[0])
    weight = small.prunable[name].weight.detach().double().clone()
    exec(declare + statistic, {})
    report = mh.prune(small, [SENTENCES[0]], method="by rms", sparsity=0.5)
    wanted = weight.abs() * inputs.square().mean(dim=0).sqrt()
    assert torch.equal(report.masks[name], lowest_half(wanted))


def test_the_names_that_a_score_may_ask_for():
    (step,) = re.findall(r"^1\. (.*?)^2\.", section("Add a score"), re.MULTILINE | re.DOTALL)
    asked = [name for name in re.findall(r"`([a-z_]+)`", step) if name not in ("weight", "prune")]
    parameters = ", ".join(name for name in asked if name != "contrast_")
    assert mh.Method(eval(f"lambda weight, {parameters}: weight")).asked
    assert {"input_norm", "input_mean", "input_std", "generator", "sparsity"} <= set(asked)


def test_a_task(small, tmp_path, capsys):
    declare, use = blocks("Add a task", "python")
    (rows,) = blocks("Add a task", "jsonl")
    file = tmp_path / "my_folder" / "mine" / "test.en.jsonl"
    assert file.relative_to(tmp_path).as_posix() in section("Add a task")
    file.parent.mkdir(parents=True)
    file.write_text(rows, encoding="utf-8")
    names: dict = {}
    exec(declare, names)
    exec(use, names)
    assert list(names["result"].labels) == [1, 0, 1]
    assert "of 3 right" in capsys.readouterr().out


def test_a_task_of_the_package_says_the_same_as_one_of_your_own(small):
    declared, templates = map(yaml.safe_load, blocks("Add a task", "yaml"))
    exec(blocks("Add a task", "python")[0], {})
    task = mh.Task(**declared["food"] | {"templates": templates[declared["food"]["templates"]]})
    mine = mh.TASKS["mine"]
    assert (task.labels, task.fields) == (mine.labels, mine.fields)
    assert task.templates["paper"] == task.templates["native"]["en"] == mine.templates["paper"]
    assert task.has_native("fr")


def test_a_language_is_where_the_recipe_says():
    code, words = map(yaml.safe_load, blocks("Add a language", "yaml"))
    assert code.items() <= data_file("languages.yml").items()
    assert words["nli"]["native"]["sw"] == data_file("templates.yml")["nli"]["native"]["sw"]
    swahili = {path.relative_to(ROOT).as_posix() for path in PACKAGE.glob("corpus/**/*sw.*")}
    assert swahili == set(re.findall(r"`(\S+/corpus/\S+)`", section("Add a language")))


def test_a_language_can_be_loaded():
    (code,) = blocks("Add a language", "python")
    names: dict = {}
    exec(code, names)
    assert names["pairs"].column_names == ["id", "en", "sw"]
    assert set(names["rows"]) == {path.parent.name for path in PACKAGE.glob("corpus/*/test.sw.*")}
    assert "sw" in mh.BOOK_LANGUAGES


def test_an_architecture(tmp_path, monkeypatch, capsys):
    load, line = blocks("Add an architecture", "python")
    specimen = eval(line, {"Specimen": zoo.Specimen})
    (listed,) = (one for one in zoo.VARIANTS if one.name == specimen.name)
    assert listed.changes == specimen.changes
    monkeypatch.chdir(tmp_path)
    tokenizer = make_tokenizer(bos=True)
    model = zoo.save_specimen(specimen, tokenizer, tmp_path / "my-checkpoint")
    names: dict = {}
    exec(load, names)
    ids = [tokenizer(text)["input_ids"] for text in ("Oui. Yes", "Oui. No")]
    scores = mh.score_choices(names["lm"], ["Oui. "], [["Yes", "No"]])
    right = [zoo.plain_score(model, one) for one in ids]
    np.testing.assert_allclose(scores[0], right, rtol=1e-4)
    assert capsys.readouterr().out == f"{zoo.BLOCKS} blocks, {7 * zoo.BLOCKS} matrices\n"


def test_the_words_of_the_zoo_are_there():
    named = set(re.findall(r"`([A-Z]+)`", section("Add an architecture")))
    assert named == {"VARIANTS", "NEEDED"} and all(hasattr(zoo, name) for name in named)
    (command,) = blocks("Add an architecture", "bash")
    chosen = re.search(r'-k "(\w+)"', command).group(1)
    assert any(chosen in specimen.name for specimen in zoo.SPECIMENS)


def chapter(folder: Path) -> Path:
    """The notebook that the recipe makes."""
    first = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", as_version=4).cells[:2]
    parameters, *rest = map(nbformat.v4.new_code_cell, blocks("Add a chapter", "python"))
    parameters.metadata["tags"] = ["parameters"]
    path = folder / "05_mine.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[*first, parameters, *rest]), path)
    return path


def test_a_chapter_declares_its_parameters(tmp_path):
    path = chapter(tmp_path)
    nbformat.validate(nbformat.read(path, as_version=4))
    declared = declared_parameters(path)
    assert set(declared) <= set(DOMAINS)
    assert {"model", "languages", "source", "seed", "output_dir"} <= set(declared)


def test_a_chapter_checks_its_parameters_and_writes_its_numbers(small, tmp_path):
    cells = nbformat.read(chapter(tmp_path), as_version=4).cells
    at = next(i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    names: dict = {}
    for cell in cells[at:]:
        exec(cell.source, names)
    assert names["parameters"]["languages"] == ["en", "fr"]
    assert names["path"].match("results/05_mine-*.json") and names["path"].is_file()


def test_a_chapter_with_a_wrong_value_is_refused(tmp_path):
    declare, check, _ = blocks("Add a chapter", "python")
    with pytest.raises(ValueError, match="limit is -1"):
        exec(declare.replace("limit: int = 36", "limit: int = -1") + check, {})
