"""`python -m twinline_cli` is `twinline`."""

from twinline_cli.main import main

main()
