"""Run the command line as `python -m shortback`, or in several processes as `torchrun -m shortback`."""

from shortback.cli import main

main()
