"""`python -m relucate.cli`: the command line without the installed script."""

from . import main

if __name__ == "__main__":
    main()
