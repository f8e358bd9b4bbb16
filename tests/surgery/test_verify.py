"""How a certificate shows itself."""

from relucate.surgery.verify import Certificate


def test_a_certificate_shows_itself_in_a_notebook():
    found = Certificate(1e-7, 2e-7, 1e-5, 8, "float32", True, notes=("of 8 x 8 <images>",))
    page = found._repr_html_()
    assert page.startswith("<p><strong>same function</strong>: largest difference 1.0e-07")
    assert "&lt;images&gt;" in page
