"""What the terminal shows: golden texts at 80 columns, any width, any text, any null.

After an intended change, write the golden files again with the printed text and look at the diff.
"""

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from relucate.report.terminal import displayable, print_study

GOLDEN = Path(__file__).parent / "golden"
FOUR = ("linear-norm-act", "linear-act-norm", "norm-linear-act", "linear-act")


def printed(study, width=80, encoding="utf-8", **options):
    """Return what is printed to a console of that width, without colour."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    print_study(study, Console(file=file, width=width, color_system=None, **options))
    file.flush()
    return raw.getvalue().decode(encoding)


CASES = {
    "better": {},
    "equivalent": {"pairs": 24, "effect": 0.0},
    "inconclusive": {"pairs": 4, "effect": 0.002, "seed": 5},
    "one_pair": {"pairs": 1},
    "four_arms": {
        "pairs": 6,
        "orders": FOUR,
        "lost": {("linear-act-norm", 3): "diverged", ("linear-act", 4): "failed"},
    },
}


@pytest.mark.parametrize("name", CASES)
def test_golden_at_80_columns(name, make_study):
    text = printed(make_study(**CASES[name]))
    assert text == (GOLDEN / f"{name}.txt").read_text("utf-8"), text


def test_an_arm_of_which_every_run_diverged_shows_no_numbers(make_study):
    study = make_study(3)
    for arm in study["arms"]:
        arm |= {"diverged": 3, "mean": 0.0, "sd": 0.0}
    text = printed(study)
    assert "0.00" not in text
    assert "no difference: no pair has a result in both arms" in text
    assert all(line.split()[2:4] == ["-", "-"] for line in text.splitlines()[5:7])


@pytest.mark.parametrize("width", range(40, 121, 7))
def test_no_line_ends_between_a_number_and_its_percent_sign(width, make_study):
    study = make_study(orders=FOUR, pairs=4)
    study["notes"].append("with bars " + "at 97.5 % or 3 % " * 9)
    lines = printed(study, width=width).splitlines()
    assert "97.5 %" in " ".join(lines)
    assert not [line for line in lines if line.lstrip().startswith("%")]


def test_golden_at_48_columns(study):
    text = printed(study, width=48)
    assert text == (GOLDEN / "narrow.txt").read_text("utf-8"), text


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_golden_files_keep_their_promises(path):
    lines = path.read_text("utf-8").splitlines()
    assert max(cell_len(line) for line in lines) <= (48 if path.stem == "narrow" else 80)
    assert all(line == line.rstrip() for line in lines)
    assert "None" not in path.read_text("utf-8")
    assert "\x1b" not in path.read_text("utf-8")


@pytest.mark.parametrize("width", [24, 40, 60, 79, 120, 200])
def test_every_number_survives_any_width(width, make_study):
    study = make_study(10, orders=FOUR[:2])
    text = " ".join(printed(study, width).split())
    assert all(cell_len(line) <= width for line in printed(study, width).splitlines())
    for number in ("95.92", "96.53", "+0.43 to +0.79", "margin 0.50 points", "23,946"):
        assert number in text


def test_colour_adds_no_character(study):
    file = io.StringIO()
    print_study(study, Console(file=file, width=80, force_terminal=True, color_system="truecolor"))
    assert "\x1b[" in file.getvalue()
    plain = Console(width=80).render_str("")
    plain = type(plain).from_ansi(file.getvalue()).plain
    assert plain.strip() == printed(study).strip()


def test_markup_and_control_characters_are_text(study):
    first, name = study["arms"][0]["label"], "[red]a\x1b[31m[/red]"
    study["arms"][0]["label"] = study["comparisons"][0]["against"] = name
    for run in study["runs"]:
        run["arm"] = name if run["arm"] == first else run["arm"]
    study["notes"] = ["[bold]not bold[/bold] [/]"]
    text = printed(study)
    assert "[red]a?[31m[/red]" in text
    assert "[bold]not bold[/bold] [/]" in text


def test_a_console_without_unicode_gets_ascii(study):
    study["notes"] = ["3 × 3 – wide"]
    text = printed(study, encoding="ascii")
    assert "3 ? 3 ? wide" in text
    assert "|" in text


def test_nulls_become_dashes_and_words(study):
    study["correlation"] = None
    first = study["comparisons"][0]
    first["correlation"] = None
    first["difference"].update(estimate=None, low=None, high=None)
    for arm in study["arms"]:
        arm.update(mean=None, sd=None, alias=None, seconds=None)
    text = printed(study)
    assert "no difference: no pair has a result in both arms" in text
    assert "correlation -" in text
    assert "alias" not in text
    assert "None" not in text


def test_displayable_keeps_what_can_be_shown():
    assert displayable(["α\n\t", 1.5, None, {"k": "\x07"}]) == ["α\n\t", 1.5, None, {"k": "?"}]


def test_an_arm_that_lost_is_worse_and_not_green(make_study):
    study = make_study(8, orders=FOUR[:3], effect=-0.02)
    assert {found["verdict"] for found in study["comparisons"]} == {"better"}
    rows = printed(study).split("in points:")[1].splitlines()
    assert [line.split()[1] for line in rows if line.strip().startswith("after")] == ["worse"]
    file = io.StringIO()
    print_study(study, Console(file=file, width=80, force_terminal=True, color_system="standard"))
    assert "\x1b[1;31mworse" in file.getvalue()


@pytest.mark.parametrize("orders", [FOUR[:2], FOUR], ids=["two arms", "four arms"])
@pytest.mark.parametrize("width", [40, 100])
def test_identical_differences_are_said_to_be_so(orders, width, make_study, same_in_all):
    text = " ".join(printed(same_in_all(make_study(9, orders=orders)), width).split())
    assert (
        "same in all pairs" if len(orders) > 2 and width > 80 else "same in all 9 pairs"
    ) in text
    assert "sign test, identical differences" in text
    assert "0.00 to 0.00" not in text


def test_each_method_of_a_table_is_named(make_study, same_in_all):
    study = make_study(9, orders=FOUR[:3])
    same_in_all({"comparisons": study["comparisons"][:1]})
    assert "(sign test, identical differences; paired t)" in " ".join(printed(study, 100).split())


def test_a_small_margin_shows_its_digits(study):
    assert "margin 0.001 points" in printed({**study, "margin": 1e-5})


@pytest.mark.parametrize("width", [40, 80])
def test_the_command_that_continues_is_one_line_at_any_width(width, study):
    command = "relucate compare net.py:build --orders before,after,none --option width=32 --out far"
    study["continue"] = f"{command} --max-pairs 40"
    study["notes"] = ["first", f"to go on from here: {study['continue']}"]
    for text in (printed(study, width), printed(study, width, force_terminal=True)):
        assert text.splitlines()[-1] == study["continue"]
        assert text.count("relucate compare net.py") == 1


def test_several_comparisons_have_a_line_each_and_the_reference_a_column(make_study):
    study = make_study(8, orders=FOUR[:3])
    first, second = study["comparisons"]
    study["comparisons"].append({**second, "against": first["arm"]})
    text = printed(study, 110)
    assert text.count("BETTER: ") == 3
    assert "arm minus reference, in points:" in text
    assert ["norm-linear-act", "after"] in [line.split()[:2] for line in text.splitlines()]


def test_a_value_stands_before_its_sentence(make_study):
    study = make_study(8, orders=FOUR[:3])
    for found, act in zip(study["comparisons"], ("relu", "tanh"), strict=True):
        found["values"] = {"act": act, "dropout": 0.2}
    first, second = study["comparisons"]
    across = {**second, "against": first["arm"], "values": {}, "sentence": "Across."}
    study["comparisons"].append(across)
    text = printed(study, 200)
    assert "relu, dropout 0.2: linear-act-norm is better" in text
    assert "Across." not in text


@pytest.mark.parametrize(("width", "lost"), [(80, 0), (70, 1), (60, 2), (40, 3)])
def test_a_table_of_comparisons_first_loses_its_last_columns(width, lost, make_study):
    text = printed(make_study(6, orders=FOUR[:3]), width)
    columns = next((line for line in text.splitlines() if "difference" in line), "")
    assert ("correlation" in columns, "pairs" in columns) == (lost < 1, lost < 2)
    assert bool(columns) == (lost < 3)


def test_the_notation_of_a_tuned_arm_is_not_written_twice(study):
    for arm in study["arms"]:
        label = f"{arm['label']} (lr=0.1)"
        for found in study["comparisons"]:
            for side in ("arm", "against", "winner"):
                found[side] = label if found[side] == arm["label"] else found[side]
        for run in study["runs"]:
            run["arm"] = label if run["arm"] == arm["label"] else run["arm"]
        arm |= {"label": label, "options": {"lr": 0.1}}
    text = printed(study, 90)
    assert "  linear-norm-act (lr=0.1)  before" in text
    assert "after (lr 0.1) minus before (lr 0.1):" in text
