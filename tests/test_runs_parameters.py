"""Parameters of notebooks: what is read, what is refused, and what the message says."""

import subprocess
import sys
import types

import pytest
import yaml

from mlprune_helpers.data import TASKS, Task, sources
from mlprune_helpers.runs import check_parameters
from mlprune_helpers.runs.parameters import DOMAINS, Value, WholeNumber


def checked(declared: str, injected: str = "") -> dict:
    namespace = {"In": ["", declared], "Out": {}, "exit": object()}
    exec(compile(declared, "parameters", "exec", dont_inherit=True), namespace)
    exec(injected, namespace)
    return check_parameters(namespace)


def test_declared_values_pass_unchanged():
    declared = 'languages: list[str] = ["en", "fr"]\nlimit: int = 60\nsource: str = "builtin"'
    assert checked(declared) == {"languages": ["en", "fr"], "limit": 60, "source": "builtin"}


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("languages", '["fr","sw"]', ["fr", "sw"]),
        ("languages", "['fr', 'sw']", ["fr", "sw"]),
        ("languages", "fr,sw", ["fr", "sw"]),
        ("languages", ("fr", "sw"), ["fr", "sw"]),
        ("limit", "12", 12),
        ("limit", None, None),
        ("limit", "none", None),
        ("sparsity", "0.5", 0.5),
        ("sparsity", 0, 0.0),
        ("sparsity", "2:4", "2:4"),
        ("sparsity", "1e-1", 0.1),
        ("limit", "1e3", 1000),
        ("limit", 12.0, 12),
        ("parallel", "ntrex", "ntrex"),
        ("parallel", "none", None),
        ("negative_controls", "sw,hi", ["sw", "hi"]),
        ("negative_controls", "[]", []),
        ("negative_controls", "", []),
        ("pooled", "no", False),
        ("pooled", "true", True),
        ("separator", "eos", "eos"),
        ("template", "native", "native"),
        ("reduction", "sum", "sum"),
        ("span", "continuation", "continuation"),
        ("split", "none", None),
        ("split", "test", "test"),
        ("n_seeds", "2", 2),
        ("n_draws", 10, 10),
        ("n_placebos", 0, 0),
        ("own_switch", "off", False),
        ("own_list", "0.1, 0.3", [0.1, 0.3]),
        ("own_switch", "true", True),
        ("own_number", "3", 3.0),
        ("own_layers", "1, 2", [1, 2]),
        ("own_layers", "none", None),
    ],
)
def test_values_get_their_type(name, given, expected):
    kinds = {
        "languages": "list[str]",
        "own_list": "list[float]",
        "own_switch": "bool",
        "own_number": "float",
    }
    kinds["own_layers"] = "list[int] | None"
    result = checked(f"{name}: {kinds.get(name, 'int')} = 1", f"{name} = {given!r}")[name]
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("model", ""),
        ("languages", []),
        ("languages", ["en", "en"]),
        ("languages", ["en", "xx"]),
        ("languages", 3),
        ("languages", ["en"]),
        ("source", "no/such/folder"),
        ("n_prompts", 1),
        ("shots", 0),
        ("limit", 0),
        ("limit", "many"),
        ("limit", True),
        ("limit", 2.5),
        ("limit", "2.5"),
        ("limit", "inf"),
        ("parallel", " "),
        ("tasks", ["reviews", "unknown"]),
        ("arms", ["translation", "traslation"]),
        ("method", "2 words"),
        ("sparsity", 1.0),
        ("sparsity", -0.1),
        ("sparsity", float("nan")),
        ("sparsity", "4:2"),
        ("sparsity", "half"),
        ("seed", -1),
        ("output_dir", 7),
        ("own", "text"),
        ("negative_controls", ["en"]),
        ("negative_controls", ["sw", "sw"]),
        ("negative_controls", ["xx"]),
        ("pooled", "sometimes"),
        ("pooled", 1),
        ("separator", "\n"),
        ("template", "nativ"),
        ("reduction", "max"),
        ("span", "half"),
        ("split", ""),
        ("n_seeds", 0),
        ("n_draws", 9),
        ("n_placebos", -1),
    ],
)
def test_wrong_values_are_refused_by_name(name, wrong):
    with pytest.raises(ValueError, match=rf"^{name} is .*Allowed: ."):
        checked(
            f"{name}: int = 1",
            f"{name} = wrong".replace("wrong", repr(wrong).replace("nan", "float('nan')")),
        )


def test_misspelt_name_is_refused_with_the_closest():
    with pytest.raises(ValueError, match=r"'sparcity'.*Did you mean 'sparsity'\?.*limit, sparsity"):
        checked("limit: int = 60\nsparsity: float = 0.3", "sparcity = 0.5")


def test_second_check_in_a_live_notebook_ignores_its_variables():
    namespace = {}
    exec(compile("limit: int = 60", "parameters", "exec", dont_inherit=True), namespace)
    check_parameters(namespace)
    namespace |= {"accuracy": 0.5, "limit": "70"}
    assert check_parameters(namespace) == {"limit": 70}


def test_annotations_of_python_3_14():
    namespace = {
        "limit": "7",
        "__annotate__": lambda form: {1: {"limit": int}}[form],
        "__annotations__": {},
    }
    assert check_parameters(namespace) == {"limit": 7}


def test_annotations_as_text():
    declared = "from __future__ import annotations\nlimit: int = 60\nown: list[int] = [1]"
    assert checked(declared, "limit, own = '7', '1,2'") == {"limit": 7, "own": [1, 2]}


# -- what a reader declares is legal --------------------------------------------------------------


def test_a_task_of_ones_own_is_legal_once_it_is_declared(monkeypatch):
    declared = 'tasks: list[str] = ["reviews"]'
    with pytest.raises(ValueError, match=r"tasks is \['mine'\].*declare your own in TASKS"):
        checked(declared, "tasks = ['mine']")
    monkeypatch.setitem(TASKS, "mine", TASKS["reviews"])
    assert checked(declared, "tasks = ['mine']") == {"tasks": ["mine"]}


def test_a_task_can_be_declared_beside_the_parameters(monkeypatch):
    monkeypatch.delitem(TASKS, "mine", raising=False)
    declared = "from mlprune_helpers import LANGUAGES, TASKS, Task\nTASKS['mine'] = TASKS['nli']\n"
    assert checked(declared + "tasks: list[str] = ['mine']") == {"tasks": ["mine"]}
    monkeypatch.delitem(TASKS, "mine")
    with pytest.raises(ValueError, match="'TASK'"):
        checked("tasks: list[str] = ['nli']", "TASK = {'mine': 1}")


def test_variables_above_the_parameters_are_the_readers_own():
    above, declared = (
        "from math import pi; template = {'prompt': '{text}'}; n: int = 3",
        "limit: int = 60",
    )
    namespace = {
        "In": ["", "%matplotlib inline", above, declared],
        "limit": 60,
        "__annotations__": {"limit": int},
    }
    assert check_parameters(namespace | {"template": {}, "n": 3, "pi": 3.14}) == {"limit": 60}
    with pytest.raises(
        ValueError, match=r"'limt'. Did you mean 'limit'\?.*Variables of your own stand above"
    ):
        check_parameters(namespace | {"limt": 5})


def test_a_method_of_ones_own_is_legal_once_it_is_registered(monkeypatch):
    name = "mlprune_helpers.pruning.methods"
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(METHODS={"mine": None}))
    assert checked("arms: list[str] = []", "arms = ['random', 'mine']") == {
        "arms": ["random", "mine"]
    }
    assert checked("method: str = 'mine'") == {"method": "mine"}
    with pytest.raises(ValueError, match="method is 'wnda'"):
        checked("method: str = 'wnda'")
    monkeypatch.delitem(sys.modules, name)  # nothing is known yet: `prune` will tell
    assert checked("method: str = 'wnda'") == {"method": "wnda"}


def test_a_parameter_of_ones_own_can_have_a_domain(monkeypatch):
    monkeypatch.setitem(DOMAINS, "depth", WholeNumber(1))
    monkeypatch.setitem(
        DOMAINS, "side", Value(str, "'left' or 'right'", ("left", "right").__contains__)
    )
    assert checked("depth: float = 2\nside: str = 'left'", "depth = '3'") == {
        "depth": 3,
        "side": "left",
    }
    with pytest.raises(ValueError, match="side is 'up'. Allowed: 'left' or 'right'"):
        checked("side: str = 'left'", "side = 'up'")


# -- what YAML makes of text without quotes --------------------------------------------------------


@pytest.mark.parametrize("pattern", ["2:4", "1:2", "4:8", "16:32", "12:30"])
def test_a_pattern_without_quotes_gets_a_hint(pattern):
    read = yaml.safe_load(f"sparsity: {pattern}")["sparsity"]
    assert isinstance(read, int)
    with pytest.raises(
        ValueError, match=rf"sparsity is {read}\. .*quotes: .*{pattern} is read as {read}"
    ):
        checked("sparsity: float = 0.3", f"sparsity = {read}")


@pytest.mark.parametrize(
    ("name", "written", "hint"),
    [
        ("languages", "[no, fr]", "no, off, yes and on stand in quotes"),
        ("languages", "on", "no, off, yes and on stand in quotes"),
        ("model", "off", "no, off, yes and on stand in quotes"),
        ("output_dir", "2026", "a number, a time or a date stands in quotes"),
        ("output_dir", "12:30", "12:30 is read as 750"),
        ("output_dir", "2026-01-31", "a number, a time or a date stands in quotes"),
        ("model", "1.10", "a number, a time or a date stands in quotes"),
        ("languages", "[1, 2]", "a number, a time or a date stands in quotes"),
        ("parallel", "1_000", "a number, a time or a date stands in quotes"),
    ],
)
def test_text_without_quotes_gets_a_hint(name, written, hint):
    with pytest.raises(ValueError, match=rf"^{name} is .*Allowed: .*In YAML, .*{hint}"):
        checked(f"{name}: str = ''", f"import datetime; {name} = {yaml.safe_load(written)!r}")


@pytest.mark.parametrize(
    ("name", "value"),
    [("sparsity", 1.5), ("sparsity", 1), ("limit", True), ("seed", -1), ("model", "")],
)
def test_no_hint_where_quotes_are_no_cure(name, value):
    with pytest.raises(ValueError, match=f"^{name} is ") as caught:
        checked(f"{name}: int = 1", f"{name} = {value!r}")
    assert "YAML" not in str(caught.value)


@pytest.mark.parametrize(
    "written", ["en, fr", "[en, fr]", "'en,fr'", "\n- en\n- fr", '["en", "fr"]']
)
def test_languages_in_any_form(written):
    languages = yaml.safe_load(f"languages: {written}")["languages"]
    assert checked("languages: list[str] = []", f"languages = {languages!r}") == {
        "languages": ["en", "fr"]
    }


# -- source, languages and tasks together ----------------------------------------------------------


def test_the_source_is_asked_for_all_that_a_notebook_needs_of_it(monkeypatch):
    asked = []
    monkeypatch.setattr(sources, "check_source", lambda *arguments: asked.append(arguments))
    declared = "source: str = 'builtin'\nlanguages: list[str] = ['fr', 'en', 'sw']"
    checked(declared)
    checked(f"{declared}\ntasks: list[str] = ['nli']\nparallel: str = None", "parallel = 'set'")
    checked("languages: list[str] = ['fr']")
    languages = ["en", "fr", "sw"]
    tasks = ["nli"]
    assert asked == [
        ("builtin", languages, (), None, None),
        ("builtin", languages, tasks, "set", None),
    ]
    checked(
        f"{declared}\nnegative_controls: list[str] = ['hi']\nsplit: str | None = 'test'",
        "languages = ['fr']",
    )
    assert asked[-1] == ("builtin", ["en", "fr", "hi"], (), None, "test")


def test_a_source_that_lacks_something_is_refused_and_can_then_be_mended(monkeypatch, tmp_path):
    (tmp_path / "sentences").mkdir()
    for language in ("en", "fr"):
        (tmp_path / "sentences" / f"{language}.txt").write_text("One.\nTwo.\nThree.\n")
    namespace = {"source": str(tmp_path), "languages": ["fr"], "tasks": ["xcopa"]}
    namespace["__annotations__"] = {"source": str, "languages": list[str], "tasks": list[str]}
    with pytest.raises(ValueError, match="xcopa"):
        check_parameters(namespace)
    assert check_parameters(namespace | {"source": "builtin", "tasks": ["nli"]})["tasks"] == ["nli"]


def test_a_language_is_no_negative_control_of_itself():
    declared = "languages: list[str] = ['fr']\nnegative_controls: list[str] = ['sw']"
    assert checked(declared)["negative_controls"] == ["sw"]
    with pytest.raises(ValueError, match="'sw' is in languages and in negative_controls"):
        checked(declared, "languages = 'fr,sw'")
    assert checked(declared, "languages, negative_controls = 'fr,sw', '[]'")["languages"] == [
        "fr",
        "sw",
    ]


def test_the_template_is_one_that_each_task_has_in_each_language(monkeypatch):
    asked = {"prompt": "{text} It is", "choices": [" bad", " good"]}
    task = Task(
        labels=("negative", "positive"),
        fields=("text",),
        templates={"paper": asked, "native": {"en": asked, "fr": asked}},
    )
    monkeypatch.setitem(TASKS, "mine", task)
    declared = "\n".join(
        [
            "languages: list[str] = ['fr']",
            "negative_controls: list[str] = []",
            "tasks: list[str] = ['mine']",
            "template: str = 'native'",
        ]
    )
    assert checked(declared)["template"] == "native"
    with pytest.raises(ValueError, match=r"'native', which 'mine' does not have in sw, but in en"):
        checked(declared, "negative_controls = ['sw']")
    assert checked(declared, "negative_controls, template = ['sw'], 'paper'")
    other = Task(labels=task.labels, fields=task.fields, templates={"paper": asked, "own": asked})
    monkeypatch.setitem(TASKS, "other", other)
    with pytest.raises(ValueError, match=r"'own', and of tasks 'mine' has paper, native"):
        checked(declared, "template, tasks = 'own', ['other', 'mine']")


def test_shots_that_no_prompt_could_have_are_refused(tmp_path):
    (tmp_path / "set").mkdir()
    for language in ("en", "fr"):
        lines = "".join(f"Sentence {i} in {language}.\n" for i in range(20))
        (tmp_path / "set" / f"{language}.txt").write_text(lines)
    declared = f"languages: list[str] = ['fr']\nsource: str = {str(tmp_path)!r}\nshots: int = 6"
    assert checked(declared)["shots"] == 6  # 12 of 20 sentences are for prompts
    with pytest.raises(
        ValueError, match=r"shots is 7.* are 12 sentences.*first 7.*leaves 5,.*needs 7.*at most 6"
    ):
        checked(declared, "shots = 7")
    with pytest.raises(ValueError, match=r"first 12 .*leaves 0,"):
        checked(declared, "shots = 200")
    with pytest.raises(ValueError, match=r"shots is 301. There are 600"):  # without a download
        checked(declared, "shots, source = 301, 'hub'")


@pytest.mark.parametrize("model", ["facebook/xglm-2.9B", "xglm-564M"])
def test_a_model_that_must_be_converted_is_refused_with_the_command(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = model.rpartition("/")[2]
    with pytest.raises(ValueError, match=f"mlprune convert facebook/{folder} {folder} --revision"):
        checked("model: str = ''", f"model = {model!r}")
    (tmp_path / model).mkdir(parents=True)
    assert checked("model: str = ''", f"model = {model!r}") == {"model": model}


# -- what is imported ------------------------------------------------------------------------------


def imported_with(module: str, names: set[str]) -> str:
    code = f"import {module}, sys; print(sorted({names!r} & set(sys.modules)))"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    ).stdout.strip()


def test_the_package_alone_imports_nothing_heavy():
    heavy = {"torch", "transformers", "datasets", "pandas", "numpy", "scipy", "matplotlib"}
    assert (
        imported_with("mlprune_helpers", heavy | {"papermill", "nbformat", "dask", "lingua"})
        == "[]"
    )


@pytest.mark.parametrize(
    "module",
    [
        "metrics",
        "plots",
        "data",
        "data.sources",
        "data.tasks",
        "files",
        "cli",
        "runs",
        "runs.parameters",
    ],
)
def test_rooms_without_torch(module):
    assert imported_with(f"mlprune_helpers.{module}", {"torch", "transformers"}) == "[]"


def test_public_names_without_torch():
    names = (
        "check_parameters, TASKS, Task, load_task, paired_bootstrap, plots, save_results, cached"
    )
    code = f"from mlprune_helpers import {names}; import sys; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "False"
    )
