"""`python -m mathlete`: the command line."""

from mathlete.cli.main import main

if __name__ == "__main__":
    main()
