"""`modtrain` and `python -m modtrain`."""

from modtrain.cli import main

if __name__ == "__main__":
    main()
