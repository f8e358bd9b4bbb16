"""Run the notebooks of this folder and store their outputs in them: make notebooks"""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

os.environ["MPLBACKEND"] = "agg"
os.environ["OMP_NUM_THREADS"] = "1"

for path in sorted(Path(__file__).parent.glob("*.ipynb")):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, record_timing=False).execute(cwd=str(path.parent))
    notebook.metadata = {"language_info": {"name": "python"}}
    nbformat.write(notebook, path)
    print(path)
