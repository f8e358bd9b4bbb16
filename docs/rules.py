"""Write docs/rules from the docstrings of the rules: python docs/rules.py"""

from pathlib import Path

from relucate.surgery.rules import RULES
from relucate.surgery.rules.pages import index, page

folder = Path(__file__).parent / "rules"
for code, rule in RULES.items():
    (folder / f"{code}.md").write_text(page(rule))
(folder / "README.md").write_text(index())
