"""`python -m twinline_cli` is `twinline`."""

from twinline_cli.entry import main

main()
