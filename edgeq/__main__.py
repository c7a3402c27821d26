"""`python -m edgeq` is `edgeq`."""

from edgeq.cli.main import main

main()
