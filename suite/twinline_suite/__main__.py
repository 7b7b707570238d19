"""`python -m twinline_suite` is `twinline`, with its interpreter named."""

from twinline_cli.entry import main

main()
