"""The consumer of one topic, by partition."""

from __future__ import annotations

import asyncio
from typing import Any

from streams.agents.group_member import GroupMember
from streams.ports import Position
from tests.unit.streams.agents.world import TOPIC, FakeFaust


def test_partitions_become_topic_partitions() -> None:
    async def scenario() -> None:
        faust = FakeFaust()
        faust.start_offsets, faust.oldest_offsets = {3: 7}, {3: 5}
        app: Any = faust
        member = GroupMember(app, TOPIC)
        assert member.generation == 1
        assert await member.commit({3: Position(8, "of the batch")})
        assert (faust.commits, faust.metadata) == ([{3: 8}], {3: "of the batch"})
        assert (member.start_offset(3), member.start_offset(0)) == (7, None)
        assert await member.oldest_offset(3) == 5

    asyncio.run(scenario())
