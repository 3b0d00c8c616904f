"""The profiles of the book: complete, and what the page on reproducibility says of them."""

import re
from pathlib import Path

import pytest
import yaml

from mlprune_helpers.data.tasks import TASKS
from mlprune_helpers.runs.parameters import ARMS, DOMAINS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "reproducibility.md").read_text(encoding="utf-8")
PROFILES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in (ROOT / "notebooks" / "profiles").glob("*.yml")
}


def table_below(heading: str) -> list[list[str]]:
    """Cells of the first table of a section, without its head."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize("profile", PROFILES)
def test_values_are_of_their_type_and_domain(profile):
    for name, value in PROFILES[profile].items():
        if name not in ("model", "template"):  # a folder to be made; one of the tasks' templates
            assert DOMAINS[name].fits(value), name


def test_profiles_set_the_same_parameters():
    own = {"parallel", "tasks", "arms"}  # where the notebooks' own values are not those of a laptop
    sizes = {"limit", "n_prompts", "n_sentences", "n_seeds", "n_draws", "n_placebos"}
    assert PROFILES.keys() == {"default", "smoke", "paper"}
    common = {name: set(values) - own for name, values in PROFILES.items()}
    assert common["smoke"] == common["paper"] == common["default"] | sizes
    assert not common["default"] & sizes  # each chapter's own, so that none takes too long
    assert set(DOMAINS) == common["paper"] | own | {"method", "output_dir"}


def test_the_paper_profile_is_the_published_protocol():
    paper = PROFILES["paper"]
    published = {
        "pooled": False,
        "separator": "eos",
        "template": "published",
        "split": "test",
        "n_prompts": 100,
        "shots": 4,
        "span": "full",
        "reduction": "mean",
        "limit": 1000,
        "sparsity": 0.3,
        "parallel": "flores_plus",
        "negative_controls": [],
        "max_new_tokens": 64,
    }
    assert {name: paper[name] for name in published} == published
    assert {"translation", "monolingual", "random"} <= set(paper["arms"]) <= set(ARMS)
    assert all(set(paper["languages"]) <= set(TASKS[task].languages) for task in paper["tasks"])
    assert not set(paper["languages"]) <= set(TASKS["marc"].languages)  # which is why it is not one


def test_the_table_of_the_protocol_says_what_the_profiles_say():
    rows = table_below("The published protocol")
    assert len(rows) > 15
    for _, parameter, *cells in rows:
        name = parameter.strip("`")
        assert name in DOMAINS
        for profile, cell in zip(("default", "paper"), cells, strict=True):
            if cell.startswith("`"):
                assert yaml.safe_load(cell.strip("`")) == PROFILES[profile][name], (profile, name)
            else:
                assert name not in PROFILES[profile], (profile, name)


def test_where_the_default_departs_the_file_says_why():
    text = (ROOT / "notebooks" / "profiles" / "default.yml").read_text(encoding="utf-8")
    told = set(re.findall(r"^(\w+): .* # .+", text, re.MULTILINE))
    departs = {
        name
        for _, parameter, *_ in table_below("The published protocol")
        for name in [parameter.strip("`")]
        if name in PROFILES["default"] and PROFILES["default"][name] != PROFILES["paper"][name]
    }
    assert len(departs) > 8 and departs <= told


def test_all_parameters_are_explained():
    named = {row[0].strip("`") for row in table_below("One chapter, other parameters")}
    assert named == set(DOMAINS) - {"method"}
    (arms,) = (row[2] for row in table_below("One chapter, other parameters") if "arms" in row[0])
    assert set(re.findall(r"`(\w+)`", arms)) == set(ARMS)
