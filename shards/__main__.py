"""`python -m shards` is `logit-shards`."""

from shards.cli import main

if __name__ == "__main__":
    main()
