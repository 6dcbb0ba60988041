"""python -m producers: what there is."""

from __future__ import annotations

import click

if __name__ == "__main__":
    click.echo(
        """Programs that write to Kafka; each explains itself with --help:

  python -m producers.generate   make clicks with known tastes, in AmazonBook's train format
  python -m producers.replay     send clicks from files to the topic of the clicks
  python -m producers.items      publish, change and remove items: their vectors go to the topic of the items"""
    )
