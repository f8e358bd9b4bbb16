"""`relucate evidence`: text, JSON, a model's own activation."""

import json
import re
from pathlib import Path

import pytest

from relucate.cli import main
from relucate.report import evidence

OWN_CARDS = Path(evidence.__file__).parents[1] / "records" / "own"


@pytest.fixture
def call(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["evidence", *arguments])
        return stopped.value.code or 0, *capsys.readouterr()

    return run


def test_text_has_the_sum_and_the_table(call):
    code, out, _ = call("--act", "relu", "--net", "vgg16")
    assert code == 0
    assert "relu, published: 4 comparisons, before ahead in 4" in " ".join(out.split())
    assert "-2.49" in out
    assert "openreview" not in out
    assert "openreview" in call("--act", "relu", "--all")[1]


def test_many_activations_add_up_to_a_table_each(call):
    out = call()[1]
    assert "comparisons, " not in out
    published = row_of(out, "Published:", "tanh")
    ours = row_of(out, "Measured with relucate compare: which", "tanh")
    summary = json.loads(call("--format", "json")[1])["summary"]
    theirs, own = (
        next(r for r in summary if (r["act"], r["own"], r["unit"]) == ("tanh", is_own, "%"))
        for is_own in (False, True)
    )
    counts = ("rows", "before", "after", "level")
    assert published[1:5] == [str(theirs[name]) for name in counts]
    assert published[-2:] == [str(theirs["tuned"]), str(theirs["spread"])]
    assert ours[1:6] == [str(own[name]) for name in (*counts, "undecided")]
    assert sum(own[name] for name in (*counts[1:], "undecided")) == own["rows"]


def row_of(out, title, act):
    """Return the cells of the first row of an activation below a title."""
    below = out[out.index(title) :].splitlines()
    return next(line.split() for line in below if line.split()[:1] == [act])


def test_the_headline_counts_studies_and_publications(call):
    found = json.loads(call("--net", "vgg", "--format", "json")[1])["results"]
    own = [row for row in found if row["study"]["own"]]
    publications = {row["study"]["id"] for row in found if not row["study"]["own"]}
    assert " ".join(call("--net", "vgg")[1].split()).startswith(
        f"{len(found)} results for net vgg: {len(own)} measured with relucate compare, "
        f"{len(found) - len(own)} from {len(publications)} publication"
    )


def test_own_cards_have_tables_of_their_own(call, tmp_path):
    ours = OWN_CARDS / "digits-mlp-relu.json"
    (tmp_path / "mine.json").write_text(ours.read_text("utf-8"))
    out = " ".join(call("--cards", str(tmp_path), "--net", "mlp", "--data", "digits")[1].split())
    assert "measured with relucate compare (1 on your cards)" in out
    assert out.index("Your own cards: mlp on digits") < out.index("compare: mlp on digits; ")
    assert "on your cards" not in call("--net", "mlp")[1]


def test_json_is_one_document(call):
    code, out, _ = call("--act", "tanh", "--format", "json")
    found = json.loads(out)
    assert (code, found["schema"], found["asked"]) == (0, "relucate.evidence/1", {"act": "tanh"})
    assert {row["act"] for row in found["results"]} == {"tanh"}


def test_a_models_activation_and_norm(call):
    code, out, _ = call("--model", "mlp", "-O", "act=tanh")
    assert code == 0
    assert "act tanh, norm batch" in out.splitlines()[0]


@pytest.mark.parametrize(("name", "known"), [("swish", "silu"), ("LeakyReLU", "leaky_relu")])
def test_an_activation_by_another_name(call, name, known):
    found = json.loads(call("--act", name, "--format", "json")[1])["results"]
    assert {row["act"] for row in found} == {known}


def test_differences_and_intervals_stay_in_one_line(call):
    out = call("--act", "tanh", "--net", "caffenet")[1]
    assert re.search(r"[+-]\d+\.\d+ +[+-]\d+\.\d+ to [+-]\d+\.\d+ +\d+$", out, re.MULTILINE)


def test_a_narrow_terminal_has_every_column(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = call("--act", "gelu", "--net", "cnn")[1]
    assert "cnn" in out
    assert "cif" in out


def test_nothing_known_is_said(call):
    code, out, _ = call("--act", "softmax")
    assert code == 0
    assert out.startswith("Nothing is known for act softmax. There are results for act: elu, ")
    assert "`relucate compare` measures it" in " ".join(out.split())


def test_what_is_known_of_each_alone_is_not_listed(call):
    out = " ".join(call("--act", "gelu", "--net", "googlenet")[1].split())
    assert out.startswith("Nothing is known for act gelu, net googlenet: `relucate compare`")
    out = " ".join(call("--act", "gelu", "--net", "resnext")[1].split())
    assert "There are results for net: " in out
    assert "for act: " not in out


def own(setting, *, data="digits, 1,437 examples", norm="batch", orders=2):
    return {"setting": setting, "data": data, "norm": norm, "scores": dict.fromkeys(range(orders))}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (own("lr 0.1, 2 epochs, batch 128"), ""),
        (own("lr 0.1, 12 epochs, batch 128"), "12 epochs"),
        (own("lr 0.1, 1 epoch, batch 32"), "1 epoch, batch 32"),
        (own("2 epochs, batch 128"), "without lr 0.1"),
        (own("lr 0.3 before, 0.1 after, 2 epochs, batch 128"), "lr 0.3 before, 0.1 after"),
        (own("lr 0.1, 2 epochs, batch 128", norm="group", orders=4), "group norm, 4 orders"),
        (own("lr 0.1, 2 epochs, batch 128", data="digits, 99 examples"), "99 examples"),
    ],
)
def test_a_row_says_only_how_it_differs_from_most(row, said):
    most = [own("lr 0.1, 2 epochs, batch 128") for _ in range(3)]
    usual = evidence._usual([row, *most])
    assert usual == ["lr 0.1", "2 epochs", "batch 128", "1,437 examples"] or said
    assert evidence._differing(evidence._trained(row), usual) == said


def test_a_single_row_says_everything():
    assert evidence._usual([own("2 epochs, batch 128")]) == []
