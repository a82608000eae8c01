"""`python -m shortback`, which is what `torchrun -m shortback` runs."""

from shortback.cli import main

main()
