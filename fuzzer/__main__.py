"""`python -m fuzzer`: the command without its installed script."""

from fuzzer.cli import main

if __name__ == "__main__":
    main()
