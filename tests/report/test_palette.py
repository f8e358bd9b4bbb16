"""Stand-in colours: each its own, all replaced, and legible against their page."""

import re

import numpy as np
import pytest

from relucate.report import palette


def luminance(colour):
    """Return the relative luminance of a hex colour (WCAG 2.2)."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """Return the contrast ratio of two hex colours (WCAG 2.2)."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_variable_has_its_own_placeholder_and_is_replaced():
    variables = list(palette.colours())
    placeholders = [palette.placeholder(variable) for variable in variables]
    assert len(set(placeholders)) == len(variables)
    themed = palette.themed(" ".join(placeholders))
    assert re.findall(r"var\(--([\w-]+),", themed) == variables


def test_no_colour_of_the_page_is_a_placeholder():
    placeholders = {palette.placeholder(variable) for variable in palette.colours()}
    assert not placeholders & {colour for pair in palette.colours().values() for colour in pair}


@pytest.mark.parametrize("shade", [0, 1])
@pytest.mark.parametrize(
    ("variable", "least"),
    [
        ("ink", 7),
        ("muted", 4.5),
        ("error", 4.5),
        ("warning", 4.5),
        ("note", 4.5),
    ]
    + [(f"arm-{k}", 3) for k in range(len(palette.ARM_LOOKS))],
)
def test_colours_stand_out_from_paper_and_card(variable, least, shade):
    colours = palette.colours()
    for ground in ("paper", "card"):
        assert contrast(colours[variable][shade], colours[ground][shade]) >= least


@pytest.mark.parametrize("shade", [0, 1])
def test_text_on_a_filled_badge_and_on_the_margins_band_is_legible(shade):
    colours = {name: pair[shade] for name, pair in palette.colours().items()}
    assert contrast(colours["paper"], colours["ink"]) >= 7
    for text in ("ink", "muted"):
        assert contrast(colours[text], colours["band"]) >= 4.5


def seen_by(colour, matrix):
    """Return a hex colour as somebody sees it who lacks one kind of cones, linear RGB."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return matrix @ np.array(linear)


# G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, A physiologically-based model for simulation of
# color vision deficiency, 2009: severity 1.
BLINDNESS = {
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("shade", ["light", "dark"])
def test_the_first_two_arms_differ_for_colour_blind_readers(kind, shade):
    one, other = (
        seen_by(getattr(arm, shade), np.array(BLINDNESS[kind])) for arm in palette.ARM_LOOKS[:2]
    )
    assert np.abs(one - other).max() > 0.2


def test_arms_without_a_colour_share_one_look():
    first, last = len(palette.ARM_LOOKS), len(palette.ARM_LOOKS) + 5
    assert palette.look(first) is palette.look(last) is palette.OTHER


def test_arms_differ_in_marker_and_dashes_too():
    assert len({arm.marker for arm in palette.ARM_LOOKS}) == len(palette.ARM_LOOKS)
    assert len({arm.dashes for arm in palette.ARM_LOOKS}) == len(palette.ARM_LOOKS)
