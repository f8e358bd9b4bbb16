"""The HTML file: one file, no request, valid structure, nothing unescaped, every null handled."""

import os
import re
from html.parser import HTMLParser

import pytest

from relucate.errors import InputError
from relucate.report import rendering
from relucate.report.figures import figures, hero
from relucate.report.html import repr_html, study_html, write_html
from relucate.report.rendering import escaped, unbroken

VOID = {"meta", "link", "br", "hr", "img", "input"}
FETCHING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}
HOSTILE = "<script>alert(1)</script>"
FOUR = ("linear-norm-act", "linear-act-norm", "norm-linear-act", "linear-act")


class Page(HTMLParser):
    """Collects tags, ids, references and visible text, and checks that tags nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.references, self.text = [], [], [], []
        self.open, self.images = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.references += [values[name] for name in FETCHING & values.keys()]
        assert not [name for name in values if name.startswith("on")]
        if values.get("role") == "img":
            self.images.append(values.get("aria-label"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def bare(text):
    """Return a page without the marks around what doesn't break."""
    return re.sub(r'<span class="nb">(.*?)</span>', r"\1", text)


def check(text):
    """Return the parsed page after the checks that hold for every report."""
    page = Page(bare(text))
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(page.tags)
    assert all(reference.startswith("#") for reference in page.references)
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    assert page.images
    assert all(page.images)
    assert "None" not in page.words
    assert "nan" not in page.words.split()
    return page


def test_the_page_says_it_all(study):
    page = check(study_html(study))
    for text in (
        study["sentence"],
        study["command"],
        study["notes"][0],
        study["engine"]["reason"],
        "2.13.0",
        "18 of 20 tensors",
        "conv1_conv/bias",
        "9f2c41d07ab3",
        study["runs"][0]["hash"][:12],
        "after minus before",
    ):
        assert text in page.words
    drawn = [*figures(study), hero(study)]
    assert len(drawn) == 7
    assert len(page.images) == 2 * len(drawn)


@pytest.mark.parametrize(
    "options",
    [
        {"pairs": 1},
        {"pairs": 2, "lost": {(o, s): "diverged" for o in FOUR[:2] for s in range(2)}},
        {"pairs": 30, "orders": FOUR, "lost": {("linear-act", 4): "failed"}},
        {"pairs": 3, "epochs": 1},
        {"pairs": 4, "effect": 0.0},
    ],
    ids=["one pair", "all diverged", "four arms", "one epoch", "no effect"],
)
def test_other_studies(options, make_study):
    study = make_study(**options)
    page = check(study_html(study))
    first = hero(study)
    assert page.tags.count("figure") == len(figures(study)) + bool(first)


def test_everything_that_may_be_null(study):
    study.update(winner=None, correlation=None, notes=[], pairing=None)
    for comparison in study["comparisons"]:
        comparison.update(correlation=None, winner=None)
        comparison["difference"].update(estimate=None, low=None, high=None)
        for pair in comparison["differences"]:
            pair["value"] = None
    study["difference"] = study["comparisons"][0]["difference"]
    for arm in study["arms"]:
        arm.update(alias=None, mean=None, sd=None, seconds=None, options=None)
    for run in study["runs"]:
        run.update(metric=None, loss=None, status="diverged", seconds=None, note=None, hash=None)
        run["curve"] = {"epoch": [1, 2], "train_loss": [None, None], "accuracy": [None, 0.1]}
    study["model"].update(options=None, source=None)
    page = check(study_html(study))
    assert "Paired differences" not in page.words


@pytest.mark.usefixtures("undrawn")
def test_no_curve_no_figure(study):
    for run in study["runs"]:
        run["curve"] = None
    names = [figure["name"] for figure in figures(study)]
    assert names == ["interval", "differences", "scores", "cost"]


def test_unequal_epochs(study):
    for run in study["runs"][::3]:
        run["curve"] = {key: values[:5] for key, values in run["curve"].items()}
    check(study_html(study))


def hostile(value, key=""):
    """Return a copy of a study's part with every free text made hostile."""
    if isinstance(value, dict):
        return {k: hostile(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item, key) for item in value]
    kept = key in ("schema", "status", "direction")
    return value + HOSTILE + "\"' {{ 7 * 7 }}" if isinstance(value, str) and not kept else value


def test_hostile_text_is_escaped_everywhere(make_study):
    study = hostile(make_study(3, lost={("linear-act-norm", 1): "diverged"}))
    for text in (study_html(study), repr_html(study)):
        assert HOSTILE not in text
        assert "&lt;script&gt;" in text
        assert "49" not in re.findall(r"\b49\b(?=&lt;)", text)
    page = check(study_html(study))
    assert study["sentence"] in page.words
    assert study["command"] in page.words


@pytest.mark.usefixtures("undrawn")
def test_a_policy_forbids_every_request(study):
    text = study_html(study)
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert text.index("Content-Security-Policy") < text.index("<style")


@pytest.mark.usefixtures("undrawn")
def test_both_colour_schemes_are_there(study):
    text = study_html(study)
    assert "prefers-color-scheme: dark" in text
    assert text.count("--arm-0:") == 2


@pytest.mark.usefixtures("undrawn")
def test_written_in_one_step_with_its_folders(study, tmp_path):
    path = tmp_path / "new" / "folder" / "report.html"
    assert write_html(study, str(path)) == path
    assert path.read_text("utf-8") == study_html(study)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    write_html(study, path)
    assert path.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.usefixtures("undrawn")
def test_a_place_that_can_not_be_written_is_named(study, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "report.html", tmp_path):
        with pytest.raises(InputError, match=re.escape(str(path))):
            write_html(study, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("undrawn")
def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(study, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_html(study, path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.usefixtures("undrawn")
def test_bytes_that_are_no_text_do_not_stop_the_report(study, tmp_path):
    study["command"] = "relucate compare \udcff.py:build"
    assert "compare ?.py:build" in write_html(study, tmp_path / "r.html").read_text("utf-8")


def test_another_schema_is_refused(study):
    study["schema"] = "relucate.probe/1"
    for render in (study_html, repr_html):
        with pytest.raises(InputError, match=r"relucate\.probe/1"):
            render(study)


def test_the_fragment_is_small_and_says_the_verdict(study):
    page = Page(repr_html(study))
    assert page.open == []
    assert page.words.startswith("BETTER linear-act-norm is better")
    assert "+0.61 points, 95 % interval +0.43 to +0.79 (paired t)" in page.words
    assert not {"html", "style", "script"} & set(page.tags)
    assert page.images == [figure for figure in page.images if figure]
    assert len(page.images) == 3


def test_the_figures_of_two_studies_in_one_notebook_share_no_id(make_study):
    pages = [Page(repr_html(make_study(4, seed=seed))) for seed in (1, 2)]
    assert not set(pages[0].ids) & set(pages[1].ids)


def lose(study, labels):
    """Make all runs of some arms diverge in the first epoch, as a document records them."""
    for run in study["runs"]:
        if run["arm"] in labels:
            run |= {"status": "diverged", "metric": None, "loss": None}
            run["curve"] = {"epoch": [1], "train_loss": [None], "accuracy": [None]}
    for arm in study["arms"]:
        if arm["label"] in labels:
            arm |= {"diverged": 3, "n": 3, "mean": 0.0, "sd": 0.0}
    return study


def captions(study):
    """Return the captions of a study's figures by their names."""
    return {figure["name"]: figure["caption"] for figure in figures(study)}


def test_figures_without_anything_to_show_are_left_out(make_study, same_in_all):
    study = same_in_all(lose(make_study(3), FOUR[:2]))
    assert list(captions(study)) == ["differences", "cost"]
    check(study_html(study))


@pytest.mark.usefixtures("undrawn")
def test_one_epoch_has_no_curves(make_study):
    assert not {"curves", "loss"} & set(captions(make_study(3, epochs=1)))


@pytest.mark.usefixtures("undrawn")
def test_runs_that_a_figure_lacks_are_counted(make_study):
    study = lose(make_study(3, orders=FOUR[:3]), FOUR[1:2])
    assert "Without a mark: 3 of 9 runs" in captions(study)["scores"]
    assert "Without a mark" not in captions(make_study(3))["scores"]


@pytest.mark.usefixtures("undrawn")
def test_an_arm_of_which_all_diverged_has_no_mean(make_study):
    page = check(study_html(lose(make_study(3), FOUR[1:2])))
    row = page.words.split("linear-act-norm – – 3 3", 1)
    assert len(row) == 2
    assert "3 of 3 runs of after" in page.words


@pytest.mark.usefixtures("undrawn")
def test_a_caption_promises_an_interval_only_where_there_is_one(make_study, same_in_all):
    said = [
        captions(study)["differences"]
        for study in (make_study(3), make_study(1), _shared(same_in_all(make_study(9))))
    ]
    assert "the diamond is their mean with its interval." in said[0]
    assert "the diamond is their mean without an interval." in said[1]
    assert "the diamond is their mean (no interval: the same in all pairs)." in said[2]


def _shared(study):
    """Return a study whose first comparison's difference is the study's."""
    return {**study, "difference": study["comparisons"][0]["difference"]}


@pytest.mark.usefixtures("undrawn")
def test_many_arms_are_one_picture_and_a_row_each(make_study):
    study = make_study(4, orders=tuple(f"arm {k}" for k in range(8)))
    page = check(study_html(study))
    assert list(captions(study)) == ["scores", "curves", "loss", "cost"]
    assert page.words.count("Each row: a mean difference") == 1
    assert study_html(study).count('<th scope="row" class="name">') == 7 + 8


@pytest.mark.usefixtures("undrawn")
def test_control_characters_do_not_reach_the_page(study):
    study["notes"] = ["a\x1b[31mb\x07 \u202eevil"]
    for text in (study_html(study), repr_html(study)):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_flags_orders_and_percentages_do_not_break():
    text = str(unbroken("linear-act-norm & --bias always, 95 % of <b>"))
    assert text.count('class="nb"') == 3
    assert "&amp;" in text
    assert "&lt;b&gt;" in text
    assert 'class="nb"' not in str(unbroken("a-very-long-word-that-has-to-break-somewhere"))


@pytest.mark.usefixtures("undrawn")
def test_tables_have_scopes_and_regions_a_name(study):
    page = study_html(study)
    assert "<th class" not in page
    assert page.count('role="region" tabindex="0" aria-label=') == page.count("<table>")
    assert page.count("<h1>") == 1
    for landmark in ("<main>", "<footer>", '<html lang="en">'):
        assert landmark in page


@pytest.mark.usefixtures("undrawn")
def test_the_command_to_go_on_stands_alone(study):
    study["continue"] = "relucate compare cnn --max-pairs 60"
    study["notes"] = [f"undecided; to go on from here: {study['continue']}"]
    page = check(study_html(study))
    assert page.words.count(study["continue"]) == 1
    assert "undecided; to go on from here:" in page.words


def test_one_reference_is_in_the_heading_and_several_have_a_column(make_study):
    study = make_study(4, orders=FOUR)
    page = bare(study_html(study))
    assert "<h3>Comparisons with before</h3>" in page
    assert '<th scope="col">against</th>' not in page
    study["comparisons"][2]["against"] = "linear-act-norm"
    page = bare(study_html(study))
    assert "<h3>Comparisons</h3>" in page
    assert '<th scope="col">against</th>' in page


def test_a_template_shows_control_characters_as_question_marks():
    assert escaped("<\x1b[31m\u202e") == "&lt;?[31m?"
    assert unbroken("\x00 at 95 %") == '? at <span class="nb">95 %</span>'
    given = dict.fromkeys(("unread", "conclusion"), "\x1b") | {"findings": [], "texts": []}
    rows, header = [["a\x07b", "-"]], ["norm", "\x85"]
    page = rendering.render("audit.html.j2", headline="", header=header, rows=rows, **given)
    assert "a?b" in page
    assert page.replace("\n", "").isprintable()
