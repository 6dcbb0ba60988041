"""List the producers: python -m producers."""

from __future__ import annotations

import click

if __name__ == "__main__":
    click.echo(
        """Programs that write to Kafka, and generators of data; each has --help:

  python -m producers.generate   generate clicks with known tastes, in AmazonBook's train format
  python -m producers.ratings    generate ratings in the format of MovieLens-1M, for the fusion model
  python -m producers.movielens  write clicks and profiles out of MovieLens-1M, or out of generated ratings
  python -m producers.replay     send clicks from files to the topic `clicks`
  python -m producers.items      publish, change and remove items on the topic `items`"""
    )
