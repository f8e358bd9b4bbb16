"""How a certificate shows itself."""

import numpy as np

from relucate.surgery.verify import Certificate, compare_outputs


def test_a_certificate_shows_itself_in_a_notebook():
    found = Certificate(1e-7, 2e-7, 1e-5, 8, "float32", True, notes=("of 8 x 8 <images>",))
    page = found._repr_html_()
    assert page.startswith("<p><strong>same function</strong>: largest difference 1.0e-07")
    assert "&lt;images&gt;" in page


def test_complex_outputs_are_compared_whole():
    ones, others = [np.array([[1 + 2j], [3 - 1j]])], [np.array([[1 + 2j], [3 + 1j]])]
    assert compare_outputs(ones, ones, "float32", None).passed
    found = compare_outputs(ones, others, "float32", None)
    assert not found.passed
    assert found.max_abs == 2.0
