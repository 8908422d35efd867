"""`python -m aioidempotency`: the command, also where no script is installed."""

from aioidempotency._cli import main

if __name__ == "__main__":
    main()
