"""Every result of a verb prints, shows itself in a notebook and is data, by one base class."""

import json

import pytest

from relucate.api.audit import AuditReport
from relucate.api.finished import Study
from relucate.api.shown import Shown
from relucate.api.transform import TransformReport


@pytest.mark.parametrize("kind", [AuditReport, Study, TransformReport])
def test_the_results_say_only_what_differs(kind):
    assert issubclass(kind, Shown)
    own = set(vars(kind))
    assert {"_data", "_views"} <= own
    assert not {"to_dict", "__str__", "_repr_html_"} & own


class Example(Shown):
    def _data(self):
        return {"a": (1, 2)}

    def _views(self):
        return lambda data, console: console.print(data), lambda data: f"<p>{data['a']}</p>"


def test_a_result():
    shown = Example()
    assert shown.to_dict() == {"a": [1, 2]}
    assert str(shown) == "{'a': [1, 2]}"
    assert shown._repr_html_() == "<p>[1, 2]</p>"


def test_data_that_is_no_json():
    class Wrong(Example):
        def _data(self):
            return {"a": float("nan")}

    with pytest.raises(ValueError, match="not JSON compliant"):
        Wrong().to_dict()
    assert json.dumps(Example().to_dict())
